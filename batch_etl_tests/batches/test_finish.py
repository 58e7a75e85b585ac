"""Finishing: every record exactly once, the right answer by precedence, sums that are bills."""

from __future__ import annotations

import datetime as dt
import hashlib
import resource
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from batch_etl.batches.answers import ANSWERS, Source, Tokens, Totals, answer_rows, answers_path
from batch_etl.batches.errors import LedgerError
from batch_etl.batches.finish import AnswerFile, Lineage, Target, finish
from batch_etl.batches.outcome import _NO_USAGE, BILLED, KINDS, Kind, Outcome
from batch_etl.batches.plan import PLAN, plan_path
from batch_etl.batches.request import keys_array
from batch_etl.batches.retry import FAILED, Policy, Tried, next_step
from batch_etl.files import ParquetSink, row_count

POLICY = Policy("m", 100, max_attempts=3)
ENDED = dt.datetime(2026, 11, 23, 1, 2, 3, tzinfo=dt.UTC)
LINEAGE = Lineage("v1", "emulator")


def key(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()[:16]


def price(model: str, tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
    return tokens[:, 0], tokens[:, 0]


@dataclass
class Bought:
    """One answers file: outcome by key number; ``for_whom``: (partition, record) by key number."""

    kinds: dict[int, Kind]
    own: bool = True
    same_pipeline: bool = True
    attempt: int = 1
    for_whom: dict[int, tuple[str | None, str]] = field(
        default_factory=dict[int, tuple[str | None, str]]
    )


@dataclass
class Scene:
    """Plans and answers on disk. A record is its key's number, or None when it is unsendable."""

    folder: UPath
    partitions: dict[str | None, list[int | None]]

    def write(self) -> None:
        for ordinal, numbers in enumerate(self.partitions.values()):
            keys = np.array([b"" if n is None else key(n) for n in numbers], dtype="S16")
            problems = ["too large" if n is None else None for n in numbers]
            ids = [f"r{row}" for row in range(len(numbers))]
            columns = [
                keys_array(keys),
                pa.array(ids, pa.string()),
                pa.array(problems, pa.string()),
            ]
            with ParquetSink(plan_path(self.folder, ordinal), PLAN) as sink:
                sink.write(pa.RecordBatch.from_arrays(columns, schema=PLAN))

    def first_of(self, number: int) -> tuple[str | None, str]:
        """The record that the key was bought for."""
        for name, numbers in self.partitions.items():
            if number in numbers:
                return name, f"r{numbers.index(number)}"
        return "elsewhere", "nobody"

    def answers(self, token: str, bought: Bought) -> AnswerFile:
        numbers = list(bought.kinds)
        whom = [bought.for_whom.get(n) or self.first_of(n) for n in numbers]
        source = Source(
            np.array([key(n) for n in numbers], dtype="S16"),
            pa.array([name for name, _ in whom], pa.string()),
            pa.array([record for _, record in whom], pa.string()),
        )
        outcomes = [
            Outcome(
                kind,
                None if kind == "Succeeded" else f"why {token}",
                output=f'"{token} {n}"' if kind == "Succeeded" else None,
                stop_reason="end_turn" if kind in BILLED else None,
                model="m" if kind in BILLED else None,
                tokens=(n + 1, 1, 0, 0, 0) if kind in BILLED else _NO_USAGE,
            )
            for n, kind in bought.kinds.items()
        ]
        with ParquetSink(answers_path(self.folder, token), ANSWERS) as sink:
            rows = range(len(numbers))
            sink.write(answer_rows(rows, outcomes, source, price, Totals()))
        return AnswerFile(
            token, f"msgbatch_{token}", bought.attempt, ENDED, bought.own, bought.same_pipeline
        )

    def finish(self, files: list[AnswerFile]) -> dict[str | None, list[dict[str, Any]]]:
        """Each partition's results by record_row, looked at for being whole."""
        targets = [
            Target(ordinal, name, self.folder / "results" / f"{ordinal}.parquet")
            for ordinal, name in enumerate(self.partitions)
        ]
        results = finish(targets, self.folder, self.folder, files, LINEAGE, policy=POLICY)
        tables: dict[str | None, list[dict[str, Any]]] = {}
        for result, (name, numbers) in zip(results, self.partitions.items(), strict=True):
            rows = pq.read_table(str(result.path)).to_pylist()
            assert sorted(row["record_row"] for row in rows) == list(range(len(numbers)))
            assert (result.key, result.records) == (name, len(numbers))
            assert result.outcomes == Counter(row["outcome"] for row in rows)
            tables[name] = sorted(rows, key=lambda row: row["record_row"])
        return tables


@pytest.fixture
def few_files() -> Iterator[None]:
    """No more than 256 files may be open at a time."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def scene(folder: Path, partitions: dict[str | None, list[int | None]]) -> Scene:
    made = Scene(UPath(folder), partitions)
    made.write()
    return made


NUMBERS = st.integers(0, 7)
KIND = st.sampled_from(KINDS)
FILES = st.lists(
    st.builds(
        Bought,
        kinds=st.dictionaries(NUMBERS, KIND, max_size=8),
        own=st.booleans(),
        same_pipeline=st.booleans(),
        attempt=st.integers(1, 3),
        for_whom=st.dictionaries(NUMBERS, st.just((None, "r0")) | st.just(("b", "r1")), max_size=3),
    ),
    max_size=4,
)
PARTITIONS = st.dictionaries(
    st.sampled_from([None, "a", "b"]), st.lists(NUMBERS | st.none(), max_size=10), max_size=3
)


Hit = tuple[int, Bought]
"""A file that tells of a question, with its place among the files."""


def first_of(hits: list[Hit], number: int) -> Hit | None:
    """Which file's row a question's records show."""

    def latest(chosen: list[Hit]) -> Hit:
        return max(chosen, key=lambda hit: (hit[1].attempt, hit[1].own, -hit[0]))

    def kind(hit: Hit) -> Kind:
        return hit[1].kinds[number]

    def is_for_good(hit: Hit) -> bool:
        tried = Tried(hit[1].attempt, kind(hit), None, "end_turn")
        return kind(hit) in FAILED and next_step(POLICY, tried) is None

    answered = [hit for hit in hits if kind(hit) == "Succeeded"]
    if answered:
        return max(answered, key=lambda hit: (hit[1].own, -hit[0]))
    for chosen in (
        [hit for hit in hits if is_for_good(hit)],
        [hit for hit in hits if hit[1].own],
        [hit for hit in hits if kind(hit) in BILLED],
    ):
        if chosen:
            return latest(chosen)
    return None


def looked_at(hits: list[Hit], number: int) -> list[Hit]:
    """The transform's own; others' where there is no own answer, or not from the first attempt."""
    own = [hit for hit in hits if hit[1].own]
    answered = any(hit[1].kinds[number] == "Succeeded" for hit in own)
    whole = answered and min(hit[1].attempt for hit in own) == 1
    return own if whole else hits


@pytest.mark.usefixtures("few_files")
def test_there_may_be_more_partitions_than_files_open_at_a_time(tmp_path: Path) -> None:
    made = scene(tmp_path, {f"p{number}": [number, None] for number in range(450)})
    tables = made.finish([made.answers("t", Bought(dict.fromkeys(range(450), "Succeeded")))])
    assert [[row["output"] for row in rows] for rows in tables.values()] == [
        [f'"t {number}"', None] for number in range(450)
    ]


@settings(max_examples=60)
@given(PARTITIONS, FILES)
def test_every_record_is_there_once_with_what_stands_first_and_what_all_attempts_cost(
    tmp_path_factory, partitions, boughts
):
    made = scene(tmp_path_factory.mktemp("finish"), partitions)
    files = [made.answers(f"t{i}", bought) for i, bought in enumerate(boughts)]
    tables = made.finish(files)
    for name, numbers in partitions.items():
        for row, number in zip(tables[name], numbers, strict=True):
            assert row["record_id"] == f"r{row['record_row']}"
            assert (row["task_version"], row["endpoint"]) == ("v1", "emulator")
            assert row["state"] == ("answered" if row["outcome"] == "Succeeded" else "review")
            if number is None:
                assert (row["outcome"], row["reason"]) == ("Errored", "too large")
                assert row["request_key"] is row["batch_id"] is None
                assert row["cost_usd"] == 0
                continue
            assert row["request_key"] == key(number).hex()
            hits = [hit for hit in enumerate(boughts) if number in hit[1].kinds]
            hits = looked_at(hits, number)
            bills = [
                (number + 1) * (bought.kinds[number] in BILLED)
                for _, bought in hits
                if bought.same_pipeline
                and (bought.for_whom.get(number) or made.first_of(number))
                == (name, row["record_id"])
            ]
            assert row["cost_usd"] == Decimal(sum(bills)).scaleb(-12)
            first = first_of(hits, number)
            if first is None:
                assert (row["outcome"], row["batch_id"]) == ("Missing", None)
                assert row["reason"]
                continue
            place, bought = first
            assert row["outcome"] == bought.kinds[number]
            assert (row["batch_id"], row["attempt"]) == (f"msgbatch_t{place}", bought.attempt)
            assert row["answered_at"] == ENDED
            assert row["custom_id"].startswith(f"t{place}-00000")


EXPIRED_LAST = [Bought({1: "Expired"}, attempt=2), Bought({1: "Invalid"}, attempt=1)]


@pytest.mark.parametrize(
    ("boughts", "shown", "cost"),
    [
        pytest.param(EXPIRED_LAST, ("Expired", 2), 2, id="the latest own attempt, all costs"),
        pytest.param(
            [*EXPIRED_LAST, Bought({1: "Succeeded"}, own=False)], ("Succeeded", 1), 4,
            id="an answer of another before an own failure",
        ),
        pytest.param(
            [*EXPIRED_LAST, Bought({1: "Refused"}, own=False)], ("Refused", 1), 4,
            id="what is for good before what may be asked again",
        ),
        pytest.param(
            [Bought({1: "Succeeded"}, attempt=3), Bought({1: "Invalid"}, attempt=2, own=False),
             Bought({1: "Truncated"}, own=False)], ("Succeeded", 3), 6,
            id="a chain that began elsewhere costs what all of it cost",
        ),
        pytest.param(
            [Bought({1: "Succeeded"}, attempt=2),
             Bought({1: "Invalid"}, own=False, same_pipeline=False)], ("Succeeded", 2), 2,
            id="what another pipeline paid is shown there",
        ),
        pytest.param(
            [Bought({1: "Invalid"}, own=False)], ("Invalid", 1), 2,
            id="what could not be asked again shows what it has",
        ),
    ],
)  # fmt: skip
def test_what_a_record_shows_and_costs(tmp_path, boughts, shown, cost):
    made = scene(tmp_path, {None: [1]})
    files = [made.answers(f"t{i}", bought) for i, bought in enumerate(boughts)]
    ((row,),) = made.finish(files).values()
    assert (row["outcome"], row["attempt"]) == shown
    assert row["cost_usd"] == Decimal(cost).scaleb(-12)


def test_other_transforms_files_are_not_read_where_each_record_has_an_own_answer(tmp_path):
    made = scene(tmp_path, {None: [1, 2]})
    own = made.answers("t0", Bought({1: "Succeeded", 2: "Succeeded"}))
    gone = AnswerFile("gone", None, 1, None, own=False)
    assert len(made.finish([own, gone])[None]) == 2
    with pytest.raises(LedgerError, match="gone"):
        made.finish([made.answers("t1", Bought({1: "Succeeded", 2: "Expired"})), gone])


@settings(max_examples=20)
@given(PARTITIONS)
def test_sums_of_costs_are_the_bill_however_often_an_answer_is_shared(tmp_path_factory, partitions):
    made = scene(tmp_path_factory.mktemp("finish"), partitions)
    asked = {n for numbers in partitions.values() for n in numbers if n is not None}
    tables = made.finish([made.answers("t0", Bought(dict.fromkeys(sorted(asked), "Succeeded")))])
    shown = sum((row["cost_usd"] or 0 for rows in tables.values() for row in rows), Decimal(0))
    assert shown == Decimal(sum(n + 1 for n in asked)).scaleb(-12)


def test_an_unknown_cost_is_null_for_the_record_it_was_bought_for(tmp_path):
    made = scene(tmp_path, {None: [1, 1]})
    file = made.answers("t0", Bought({1: "Succeeded"}))
    table = pq.read_table(str(answers_path(made.folder, "t0")))
    unknown = pa.nulls(1, ANSWERS.field("cost_usd").type)
    place = ANSWERS.get_field_index("cost_usd")
    pq.write_table(
        table.set_column(place, "cost_usd", unknown), str(answers_path(made.folder, "t0"))
    )
    assert [row["cost_usd"] for row in made.finish([file])[None]] == [None, 0]


def test_large_partitions_in_groups_of_their_own_are_all_written(tmp_path):
    many: list[int | None] = [n % 500 for n in range(60_000)]
    made = scene(tmp_path, {"a": many, "b": many, "c": [1], "d": []})
    file = made.answers("t0", Bought(dict.fromkeys(range(500), "Succeeded")))
    targets = [Target(i, name, tmp_path / f"{name}.parquet") for i, name in enumerate("abcd")]
    targets = [Target(t.ordinal, t.key, UPath(t.path)) for t in targets]
    results = finish(targets, made.folder, made.folder, [file], LINEAGE, policy=POLICY)
    assert [(result.key, result.outcomes) for result in results] == [
        ("a", {"Succeeded": 60_000}),
        ("b", {"Succeeded": 60_000}),
        ("c", {"Succeeded": 1}),
        ("d", {}),
    ]
    assert [row_count(target.path) for target in targets] == [60_000, 60_000, 1, 0]


def test_results_replace_the_earlier_ones_only_when_all_of_the_group_is_written(tmp_path):
    made = scene(tmp_path, {"a": [1], "b": [2]})
    before = made.finish([made.answers("t0", Bought({1: "Succeeded", 2: "Refused"}))])
    gone = AnswerFile("gone", None, 1, None, own=True)
    with pytest.raises(LedgerError, match="gone"):
        made.finish([made.answers("t1", Bought({1: "Succeeded"})), gone])
    names = sorted(path.name for path in (made.folder / "results").iterdir())
    assert names == ["0.parquet", "1.parquet"]
    for ordinal, name in enumerate("ab"):
        assert (
            pq.read_table(str(made.folder / "results" / f"{ordinal}.parquet")).to_pylist()
            == (before[name])
        )
