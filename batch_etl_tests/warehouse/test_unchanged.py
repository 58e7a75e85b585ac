"""A partition loaded again keeps the rows that would be the same, and ends as if replaced."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from upath import UPath

from batch_etl.warehouse import (
    Decision,
    LoadReport,
    TableSpec,
    Warehouse,
    loaded_tables,
    rows,
    standings,
    unchanged,
)
from batch_etl_tests.warehouse.make import partition

STRING = {"type": "string"}
NUMBERS = {"type": "array", "items": {"type": "integer"}}
PART = {"type": "object", "properties": {"a": STRING}, "required": []}
COUNT = 80


def schema(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


LABEL = schema(label=STRING)
SPEC = TableSpec("t", "id", output_schema=LABEL)
FREE = {"type": "object", "properties": {"label": STRING, "n": NUMBERS, "part": PART}}


@dataclass(frozen=True)
class State:
    """What a partition's files hold; ``at`` replaces single answers."""

    at: dict[int, Any] = field(default_factory=dict[int, Any])
    key: str | None = "d"
    count: int = COUNT
    spec: TableSpec = SPEC
    records: Callable[[int], dict[str, Any]] | None = None
    change: dict[int, dict[str, Any]] = field(default_factory=dict[int, dict[str, Any]])
    order: Callable[[Sequence[int]], Sequence[int]] | None = None
    decide: dict[str, str] = field(default_factory=dict[str, str])
    """Decisions of a person, after this load."""


class House:
    """A warehouse whose partitions keep unchanged rows and are joined in parts, or neither."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, *, keeps: bool) -> None:
        self._folder = folder
        self._sizes = (0, COUNT // 3) if keeps else (10**9, 10**9)
        self._patch = patch
        self.warehouse = Warehouse(UPath(folder / "w/working.duckdb"), UPath(folder / "w.duckdb"))

    def load(self, state: State) -> LoadReport:
        self._patch.setattr(unchanged, "MIN_ROWS", self._sizes[0])
        self._patch.setattr(rows, "ROWS_PER_JOIN", self._sizes[1])
        answers = [state.at.get(n, {"label": f"label {n}"}) for n in range(state.count)]
        load = partition(
            self._folder,
            state.key,
            answers,
            records=state.records(state.count) if state.records else None,
            change=state.change,
            order=state.order(range(state.count)) if state.order else None,
        )
        report = self.warehouse.load(state.spec, "anthropic", [load])
        if state.decide:
            self._decide(state.decide, state.key)
        return report

    def _decide(self, labels: dict[str, str], key: str | None) -> None:
        self.warehouse.publish()
        with self.warehouse.read_only() as connection:
            (table,) = loaded_tables(connection)
            now = standings(connection, table, list(labels))
        decisions = [
            Decision(now[name, key], json.dumps({"label": label})) for name, label in labels.items()
        ]
        self.warehouse.decide(table, decisions, "anna")

    def rows(self, *queries: str) -> list[list[tuple[Any, ...]]]:
        self.warehouse.publish()
        with self.warehouse.read_only() as connection:
            return [connection.execute(query).fetchall() for query in queries]

    def all(self) -> list[list[tuple[Any, ...]]]:
        """Everything that a load writes, but for the times of loads and decisions."""
        return self.rows(
            "SELECT * EXCLUDE (_loaded_at, _decided_at) FROM t ORDER BY ALL",
            "SELECT * EXCLUDE replaced_at FROM _batch_etl.earlier ORDER BY ALL",
            "SELECT * EXCLUDE (loaded_at, digest) FROM _batch_etl.loads ORDER BY ALL",
        )

    def kept(self) -> int:
        """How many rows are older than the last load of their partition."""
        (((count,),),) = self.rows(
            "SELECT count(*) FROM t JOIN _batch_etl.loads l "
            "ON t._partition IS NOT DISTINCT FROM l.partition WHERE t._loaded_at < l.loaded_at"
        )
        return count


def records(**columns: Any) -> Callable[[int], dict[str, Any]]:
    """``columns`` by row number, beside an id."""

    def made(count: int) -> dict[str, Any]:
        numbers = range(count)
        values = {name: [value(n) for n in numbers] for name, value in columns.items()}
        return {"id": [f"r{n}" for n in numbers], **values}

    return made


def ids(of: Callable[[int], Any]) -> Callable[[int], dict[str, Any]]:
    return lambda count: {"id": pa.array([of(n) for n in range(count)], pa.string())}


def other_batch(*rows: int, **more: Any) -> dict[int, dict[str, Any]]:
    return {n: {"batch_id": "msgbatch_2", "request_key": f"other {n}", **more} for n in rows}


def spec(output_schema: Any = LABEL, **settings: Any) -> TableSpec:
    return TableSpec("t", "id", output_schema=output_schema, **settings)


def spans(count: int) -> dict[str, Any]:
    pairs = [[("k", n)] for n in range(count)]
    body = pa.array(pairs, pa.map_(pa.string(), pa.int64()))
    return {"id": [f"r{n}" for n in range(count)], "body": body}


def twins(first: str) -> State:
    """The first records are those of these ids, and rows of the same id are the same."""
    named = dict(enumerate(first.split()))
    return State(
        {n: {"label": "same"} for n in named},
        records=ids(lambda n: named.get(n, f"r{n}")),
        change={n: {"request_key": name} for n, name in named.items()},
    )


MISFIT = '{"label": "x", "more": 1}'
DAY = datetime(2026, 11, 2, tzinfo=UTC)
NULLS: dict[int, Any] = {
    1: {"label": "x", "n": None, "part": None},
    2: {"label": "x", "n": [], "part": {"a": None}},
    3: {"label": "x", "n": [None], "part": {"a": "NULL"}},
}

KEPT: dict[str, list[State]] = {
    "an answer": [State(), State({3: {"label": "other"}})],
    "a request": [State(), State(change=other_batch(3, 7))],
    "a time": [State(), State(change={3: {"answered_at": DAY}})],
    "a record": [
        State(records=records(body=lambda n: n)),
        State(records=records(body=lambda n: -n if n == 5 else n)),
    ],
    "names that the load has for itself": [
        State(records=records(h=lambda n: n, record_row=str, doubtful=str, v0=str, fresh=str)),
        State(
            {1: {"label": "x"}},
            records=records(h=lambda n: n, record_row=str, doubtful=str, v0=str, fresh=str),
        ),
    ],
    "a record more": [State(), State(count=COUNT + 1)],
    "a record less": [State(), State(count=COUNT - 1)],
    "the results' order": [State(), State({1: {"label": "x"}}, order=lambda n: n[::-1])],
    "no partition": [State(key=None), State({1: {"label": "x"}}, key=None)],
    "one of two": [State(key="c"), State(), State({1: {"label": "x"}})],
    "an answer that came": [State({3: None}), State()],
    "an answer that went": [State(), State({3: None})],
    "a misfit that came": [State(), State({3: MISFIT})],
    "a misfit that went": [State({3: MISFIT}), State()],
    "misfits that stay": [State({3: MISFIT, 4: MISFIT}), State({3: MISFIT, 4: MISFIT, 5: None})],
    "nulls": [
        State(NULLS, spec=spec(FREE)),
        State({1: NULLS[2], 2: NULLS[3], 3: NULLS[1]}, spec=spec(FREE)),
    ],
    "nulls the other way": [
        State(NULLS, spec=spec(FREE)),
        State({1: NULLS[3], 2: NULLS[1], 3: NULLS[2]}, spec=spec(FREE)),
    ],
    "a decision": [
        State({3: None, 4: None}, decide={"r3": "spam"}),
        State({3: None, 4: None, 5: {"label": "x"}}),
    ],
    "a decision that gives way": [
        State({3: None, 4: None}, decide={"r3": "spam", "r4": "ham"}),
        State({4: None}, change=other_batch(4)),
    ],
    "a decision on a row that was kept": [
        State({3: None}),
        State({3: None, 4: {"label": "x"}}, decide={"r3": "spam"}),
        State({3: None}),
    ],
    "a task version of some": [State(), State(change={3: {"task_version": "v2"}})],
    "a column that is not asked for": [
        State(records=records(body=lambda n: "text" if n == 5 else None)),
        State(spec=spec(columns=()), records=records(body=lambda _: "text")),
    ],
    "a column that is new": [
        State(spec=spec(columns=())),
        State(records=records(body=lambda n: "text" if n == 5 else None)),
    ],
    "a column that is wider": [
        State(records=records(body=lambda n: n)),
        State(records=records(body=lambda n: 0.5 if n == 5 else float(n))),
    ],
    "ids that are NULL": [
        State(records=ids(lambda n: f"r{n}" if n else None), change={0: {"record_id": None}}),
        State(
            {1: {"label": "x"}},
            records=ids(lambda n: f"r{n}" if n else None),
            change={0: {"record_id": None}},
        ),
    ],
    "an id twice": [
        State(records=ids(lambda n: f"r{max(n, 1)}")),
        State({0: {"label": "x"}}, records=ids(lambda n: f"r{max(n, 1)}")),
    ],
}
"""What differs between two loads of a partition, most of whose rows are the same."""

REPLACED: dict[str, list[State]] = {
    "a row that is there as often as another was": [twins("r1 r1 r2"), twins("r1 r2 r2")],
    "the task": [State(), State(change={n: {"task_version": "v2"} for n in range(COUNT)})],
    "most answers": [State(), State({n: {"label": "x"} for n in range(20, COUNT)})],
    "the partitions that are no more": [State(key="a"), State(key="b"), State(key=None)],
    "the partitions that are new": [State(key=None), State({1: None}, key="d")],
    "a column that has the name of what tells rows apart": [
        State(records=records(rowid=lambda n: n)),
        State({1: {"label": "x"}}, records=records(rowid=lambda n: n)),
    ],
    "a type that is not compared": [
        State(records=spans),
        State({1: {"label": "x"}}, records=spans),
    ],
}
"""What makes a partition be replaced as a whole."""


@pytest.mark.parametrize(
    ("states", "kept"),
    [
        *(pytest.param(states, True, id=name) for name, states in KEPT.items()),
        *(pytest.param(states, False, id=name) for name, states in REPLACED.items()),
    ],
)
def test_the_table_is_as_if_the_partition_had_been_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, states: list[State], kept: bool
) -> None:
    keeps = House(tmp_path / "keeps", monkeypatch, keeps=True)
    replaces = House(tmp_path / "replaces", monkeypatch, keeps=False)
    for number, state in enumerate(states):
        once, other = keeps.load(state), replaces.load(state)
        assert (once.partitions, once.changes) == (other.partitions, other.changes), number
        assert once.decisions == other.decisions
        assert keeps.all() == replaces.all(), number
    assert bool(keeps.kept()) is kept
    assert not replaces.kept()


def test_a_row_that_stays_says_when_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = House(tmp_path, monkeypatch, keeps=True)
    house.load(State())
    ((at,),) = house.rows("SELECT max(_loaded_at) FROM t")[0]
    house.load(State({3: {"label": "other"}}))
    assert house.rows(f"SELECT id FROM t WHERE _loaded_at > '{at}'") == [[("r3",)]]
    assert house.load(State({3: {"label": "other"}})).unchanged
