"""The ``checks`` block of a pipeline, and how its verdicts become Dagster's asset checks.

    on results    row_count, success_rate, schema_validity, cost, completion_time, label_drift
    on table      row_count, review_queue

Checks run in their asset's own step, after what it made is recorded. A failed check that blocks
fails that step with severity ``error``, so nothing after it runs: a check of ``results`` that
blocks keeps a bad table from being published, and what was bought is kept. Label drift is therefore
looked for in results files, and not in the table.

A partition is judged by itself, in a run of one as in a run of a hundred. Dagster can only do that
for a check that has the asset's partitions, and only for a run of one: in a run of a range an
``AssetCheckResult`` names no partition, and one planned evaluation a partition stays open for ever
(tried on 1.13.27). So the step yields ``AssetCheckEvaluation`` itself, one a check and partition,
which fills each planned one, and an empty output for each check, which the step must have.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, Self

import dagster as dg
import pydantic

from batch_etl.components.verdicts import Verdict
from batch_etl.strict import Strict

Share = Annotated[float, pydantic.Field(ge=0, le=1)]
Severity = Literal["warn", "error"]


class Check(Strict):
    """What all checks have."""

    enabled: bool = pydantic.Field(default=True, description="Whether it is made.")
    severity: Severity | None = pydantic.Field(
        default=None, description="Of a failed check: `warn`, or `error`."
    )
    blocking: bool = pydantic.Field(
        default=False, description="A failed check fails its step, and nothing after it runs."
    )

    @pydantic.model_validator(mode="after")
    def _blocks_as_an_error(self) -> Self:
        if self.blocking and self.severity == "warn":
            raise ValueError("`blocking: true` needs `severity: error`: a warning blocks nothing")
        return self

    @property
    def level(self) -> dg.AssetCheckSeverity:
        """``severity``, by default an error where it blocks and a warning elsewhere."""
        chosen = self.severity or ("error" if self.blocking else "warn")
        return dg.AssetCheckSeverity[chosen.upper()]


class RowCount(Check):
    """Each record has one row."""

    severity: Severity | None = pydantic.Field(default="error", description="Of a failed check.")
    blocking: bool = pydantic.Field(default=True, description="As of all checks.")


class SuccessRate(Check):
    """Share of the records that were answered."""

    min_share: Share = pydantic.Field(default=0.9, description="Least share of answered records.")


class SchemaValidity(Check):
    """Share of the records whose answer the schema, or a condition, does not allow."""

    max_share: Share = pydantic.Field(default=0.05, description="Largest share of Invalid.")


class ReviewQueue(Check):
    """Share of the table's records that wait for a person."""

    max_share: Share = pydantic.Field(default=0.1, description="Largest share in review.")


class Cost(Check):
    """What is committed of the pipeline's budgets."""

    max_share: Share = pydantic.Field(default=0.8, description="Of each limit in `budget`.")


class CompletionTime(Check):
    """Hours from the first batch sent to the last one ended."""

    max_hours: Annotated[float, pydantic.Field(gt=0)] = pydantic.Field(
        default=24, description="Longest time."
    )


class LabelDrift(Check):
    """How far the labels are from those of the partitions before."""

    max_distance: Share = pydantic.Field(default=0.2, description="Jensen-Shannon, 0 to 1.")
    partitions: Annotated[int, pydantic.Field(ge=1, le=366)] = pydantic.Field(
        default=7, description="How many partitions before this one are compared with."
    )
    columns: list[str] | None = pydantic.Field(
        default=None, description="Of the answer; by default all booleans and enums."
    )


class Checks(Strict):
    """Which checks are made, with which thresholds."""

    row_count: RowCount = pydantic.Field(default=RowCount(), description=RowCount.__doc__)
    success_rate: SuccessRate = pydantic.Field(
        default=SuccessRate(), description=SuccessRate.__doc__
    )
    schema_validity: SchemaValidity = pydantic.Field(
        default=SchemaValidity(), description=SchemaValidity.__doc__
    )
    cost: Cost = pydantic.Field(default=Cost(), description=Cost.__doc__)
    completion_time: CompletionTime = pydantic.Field(
        default=CompletionTime(), description=CompletionTime.__doc__
    )
    label_drift: LabelDrift = pydantic.Field(default=LabelDrift(), description=LabelDrift.__doc__)
    review_queue: ReviewQueue = pydantic.Field(
        default=ReviewQueue(), description=ReviewQueue.__doc__
    )

    def of(self, name: str) -> Check:
        return getattr(self, name)


SENTENCES = {
    "row_count": "Each record has one row.",
    "success_rate": "At least {min_share:.0%} of the records are answered.",
    "schema_validity": "At most {max_share:.0%} of the records have an answer against the schema.",
    "cost": "At most {max_share:.0%} of each budget is committed.",
    "completion_time": "All batches end within {max_hours:g} hours of the first one's sending.",
    "label_drift": "The labels' shares are at most {max_distance:g} (Jensen-Shannon distance) from "
    "those of the {partitions} partitions before.",
    "review_queue": "At most {max_share:.0%} of the records wait for a person.",
}


def specs(
    asset: dg.AssetKey,
    names: Sequence[str],
    checks: Checks,
    partitions: dg.PartitionsDefinition[str] | None,
) -> list[dg.AssetCheckSpec]:
    """What Dagster is told of an asset's checks, those that are enabled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # partitions_def, which is what we need
        return [
            dg.AssetCheckSpec(
                name,
                asset=asset,
                description=SENTENCES[name].format(**checks.of(name).model_dump()),
                blocking=checks.of(name).blocking,
                partitions_def=partitions,
            )
            for name in names
            if checks.of(name).enabled
        ]


def told(
    context: dg.AssetExecutionContext, checks: Checks, verdicts: Sequence[Verdict]
) -> Iterator[dg.Output[None] | dg.AssetCheckEvaluation]:
    """Give a step's verdicts to Dagster; one for each of its checks and partitions.

    Raises ``dagster.Failure`` at the end where one that blocks has failed.
    """
    made = {key.name: key for key in context.selected_asset_check_keys}
    yield from untold(context)
    for verdict in verdicts:
        if verdict.check in made:
            yield _evaluation(made[verdict.check], checks.of(verdict.check), verdict)
    blocked = [v for v in verdicts if _blocks(v, checks) and v.check in made]
    if blocked:
        raise dg.Failure(_refusal(blocked), allow_retries=False)


def untold(context: dg.AssetExecutionContext) -> Iterator[dg.Output[None]]:
    """For a step that ends before it has made anything: its checks are not evaluated."""
    for key in sorted(context.selected_asset_check_keys, key=str):
        yield dg.Output(None, output_name=f"{key.asset_key.to_python_identifier()}_{key.name}")


def _evaluation(key: dg.AssetCheckKey, check: Check, verdict: Verdict) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=verdict.passed,
        metadata=verdict.numbers,
        severity=check.level,
        description=verdict.sentence,
        blocking=check.blocking,
        partition=verdict.partition,
    )


def _blocks(verdict: Verdict, checks: Checks) -> bool:
    check = checks.of(verdict.check)
    return not verdict.passed and check.blocking and check.level is dg.AssetCheckSeverity.ERROR


def _refusal(blocked: Sequence[Verdict]) -> str:
    shown = [
        f"{one.check}{f' of {one.partition}' if one.partition else ''}: {one.sentence}"
        for one in blocked[:5]
    ]
    more = f" (and {len(blocked) - 5} more)" if len(blocked) > 5 else ""
    return (
        f"blocked by {len(blocked)} failed check(s){more}: {' '.join(shown)} What this step made "
        "is kept, and nothing after it was run. Correct the cause and run again, or materialize "
        "what comes after by itself."
    )
