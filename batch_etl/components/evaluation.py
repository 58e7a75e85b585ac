"""The ``Evaluation`` component: one YAML block -> variants of a task, judged on labelled records.

    <name>_<variant>/records, results, table    a pipeline for each variant, like any other
    <name>/scores                               what they came to: tables, checks, a picture

Each variant is a whole pipeline with a table of its own, so nothing about waiting, reuse, budgets,
review or terminating is special here; a variant that asks the same as another (or as the real
pipeline) buys nothing. The evaluation has no partitions: its cases are one set.

The task is written here, or is that of a pipeline beside it (``task_from``), so that the very
prompt that is in use is under test. ``use`` names the variant that the gates judge: promoting
another is changing that line.
"""

# No postponed annotations here: Dagster reads those of the assets' functions as they are.
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import dagster as dg
import pydantic
import yaml

from batch_etl.batches.budget import Budget
from batch_etl.batches.task import Task
from batch_etl.components import scores
from batch_etl.components.batch_pipeline import POOL, BatchPipeline, Table
from batch_etl.components.strict_component import StrictComponent
from batch_etl.errors import ConfigError
from batch_etl.evaluation import Gate, KnownGood, Score
from batch_etl.resources import EndpointResource, StorageResource, WarehouseResource
from batch_etl.sources import AnySource
from batch_etl.strict import did_you_mean

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class VariantPipeline(BatchPipeline):
    """One variant's pipeline: in the evaluation's group."""

    group: str

    def _shared(self, name: str, pipeline: Any, what: str) -> Mapping[str, Any]:
        return {**super()._shared(name, pipeline, what), "group_name": self.group}


class Evaluation(StrictComponent):
    """Variants of a task over records whose right answer is known, scored and compared."""

    name: str = pydantic.Field(description="Asset group, and how its tables' names begin.")
    source: AnySource = pydantic.Field(description="The labelled records.")
    task: Task | None = pydantic.Field(
        default=None, description="What is asked, before a variant changes it."
    )
    task_from: str | None = pydantic.Field(
        default=None,
        description="Instead of `task`: the YAML of a pipeline whose task it is, relative to here.",
    )
    variants: dict[str, dict[str, Any]] = pydantic.Field(
        default_factory=lambda: {"current": {}},
        description="By name: keys of the task that this variant has otherwise; {} for none.",
    )
    use: str | None = pydantic.Field(
        default=None,
        description="The variant that gates judge and others are compared with; "
        "by default the first.",
    )
    scores: list[Score] = pydantic.Field(
        min_length=1, description="Which fields are right, and how that is told."
    )
    gates: list[Gate] = pydantic.Field(
        default_factory=list, description="What must hold; each is an asset check."
    )
    known_good: str | None = pydantic.Field(
        default=None, description="JSON Lines of approved answers, relative to here."
    )
    max_changed: int | None = pydantic.Field(
        default=None,
        ge=0,
        description="How many correct answers may be other than in `known_good`; a check.",
    )
    budget: Budget | None = pydantic.Field(
        default=None, description="Of each variant; over it nothing is sent."
    )
    description: str | None = pydantic.Field(default=None, description="What is evaluated.")
    owners: list[str] = pydantic.Field(
        default_factory=list, description="Users (e-mail) or team:name."
    )
    tags: dict[str, str] = pydantic.Field(default_factory=dict, description="Tags of all assets.")

    @pydantic.field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} must be letters, digits and underscores, as in an SQL name")
        return name

    @pydantic.field_validator("variants")
    @classmethod
    def _variants_have_names(cls, variants: dict[str, dict[str, Any]]) -> dict[str, Any]:
        if not variants:
            raise ValueError("name one variant at least")
        for variant, changes in variants.items():
            if not _NAME.fullmatch(variant):
                raise ValueError(f"{variant!r} must be letters, digits and underscores")
            for key in changes:
                if key not in Task.model_fields:
                    known = set(Task.model_fields)
                    raise ValueError(
                        f"{variant}.{key} is no key of a task{did_you_mean(key, known)}"
                    )
        return variants

    @pydantic.model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.task is None) == (self.task_from is None):
            raise ValueError("give either `task` or `task_from`")
        fields = {score.field for score in self.scores}
        for at, gate in enumerate(self.gates):
            self._require(f"gates.{at}.variant", gate.variant, set(self.variants))
            self._require(f"gates.{at}.not_below", gate.not_below, set(self.variants))
            self._require(f"gates.{at}.field", gate.field, fields | {"*"})
        self._require("use", self.use, set(self.variants))
        names = [gate.check_name(gate.variant or self.in_use) for gate in self.gates]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"gates: two of them are {min(twice)}; keep the stricter one")
        if self.max_changed is not None and self.known_good is None:
            raise ValueError("max_changed: there is no `known_good` to compare with")
        return self

    @staticmethod
    def _require(where: str, name: str | None, known: set[str]) -> None:
        if name is not None and name not in known:
            raise ValueError(f"{where}: {name!r} is none{did_you_mean(name, known)}")

    @property
    def in_use(self) -> str:
        return self.use or next(iter(self.variants))

    def pipeline_name(self, variant: str) -> str:
        """The name of a variant's pipeline, and of its table."""
        return f"{self.name}_{variant}"

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """A pipeline for each variant, and the asset that scores them."""
        folder = Path(context.path)
        asked = self._asked(folder)
        pipelines = {
            variant: self._pipeline(variant, asked, changes)
            for variant, changes in self.variants.items()
        }
        built = [one.build_defs(context) for one in pipelines.values()]
        evaluated = dg.Definitions(assets=[self._scores(folder, pipelines)])
        return dg.Definitions.merge(*built, evaluated)

    def approved(self, folder: Path) -> KnownGood:
        """The approved answers; none where the file is not there yet."""
        path = folder / self.known_good if self.known_good else None
        return KnownGood.read(path) if path is not None and path.exists() else KnownGood()

    def _known_good_at(self, folder: Path) -> dict[str, str]:
        return {scores.KNOWN_GOOD: str(folder / self.known_good)} if self.known_good else {}

    def _asked(self, folder: Path) -> dict[str, Any]:
        """The task that variants change, as its YAML's keys."""
        if self.task_from is None:
            assert self.task is not None  # noqa: S101  checked at load
            return self.task.anchored(folder).model_dump(exclude_unset=True)
        path = folder / self.task_from
        try:
            block = yaml.safe_load(path.read_text(encoding="utf-8"))
            task = block["attributes"]["task"]
        except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{self.name}: task_from: {path} cannot be read as the YAML of a pipeline "
                f"({type(error).__name__}: {error})"
            ) from None
        where = f"{path}: attributes.task"
        return Task.load(task, where).anchored(path.parent).model_dump(exclude_unset=True)

    def _pipeline(
        self, variant: str, asked: Mapping[str, Any], changes: Mapping[str, Any]
    ) -> VariantPipeline:
        task = Task.load({**asked, **changes}, f"{self.name}: variants.{variant}")
        said = f"Variant {variant!r} of the evaluation {self.name}."
        return VariantPipeline(
            name=self.pipeline_name(variant),
            group=self.name,
            source=self.source,
            task=task,
            table=Table(),
            budget=self.budget,
            description=" ".join(filter(None, [said, self.description])),
            owners=self.owners,
            tags=self.tags,
        )

    def _scores(
        self, folder: Path, pipelines: Mapping[str, VariantPipeline]
    ) -> dg.AssetsDefinition:
        key = dg.AssetKey([self.name, "scores"])
        plan = scores.Plan(
            name=self.name,
            id_column=self.source.id,
            tables={variant: one.table_spec.name for variant, one in pipelines.items()},
            in_use=self.in_use,
            scores=tuple(self.scores),
            gates=tuple(self.gates),
            labelled=frozenset(one.field for one in self.scores if one.scorer == "exact"),
            max_changed=self.max_changed,
        )

        @dg.asset(
            key=key,
            group_name=self.name,
            description="How good each variant's answers are, and whether the gates hold.",
            owners=self.owners,
            tags=self.tags,
            kinds={"duckdb"},
            deps=[dg.AssetKey([one.name, "table"]) for one in pipelines.values()],
            pool=POOL,
            check_specs=scores.specs(key, plan),
            metadata={scores.IN_USE: self.in_use, **self._known_good_at(folder)},
        )
        def scored(
            context: dg.AssetExecutionContext,
            storage: StorageResource,
            endpoint: EndpointResource,
            warehouse: WarehouseResource,
        ) -> Iterator[Any]:
            approved = self.approved(folder)
            yield from scores.score(
                context, plan, storage, endpoint, warehouse=warehouse, approved=approved
            )

        return scored
