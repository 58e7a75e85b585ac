"""A question's chain: attempt after attempt until an answer can be used. Pure, in columns.

Of all answers to a question, the transform's own and those of others, the one that stands last
says what is asked next; the number of the next attempt follows the highest there was. What is asked
next becomes the manifests of the next batches: one attempt and one model each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from batch_etl import arrow
from batch_etl.batches.answers import ANSWERS
from batch_etl.batches.history import SITUATION, next_steps, standing
from batch_etl.batches.keys import KeyMap
from batch_etl.batches.manifest import MANIFEST, keys_of
from batch_etl.batches.request import custom_ids
from batch_etl.batches.retry import Policy, Step

pc: Any = pyarrow.compute  # its functions are made at import; a type checker sees none

READ = ["request_key", "row", "text", "faulty", *SITUATION]
"""The columns of an answers file that :func:`unusable` looks at."""

PLACE = pa.schema(list(MANIFEST)[:4])
"""Which record a question is asked for."""

ANSWER = pa.schema(
    [
        *(ANSWERS.field(name) for name in ("request_key", "faulty", *SITUATION)),
        ("attempt", pa.int64()),
        ("custom_id", pa.string()),
        ("has_text", pa.bool_()),
    ]
)
"""An answer that cannot be used, as far as the next attempt depends on it."""


class Batch(NamedTuple):
    """What the requests of a batch have in common."""

    attempt: int
    claude_model: str | None
    """None: the task's own."""


def unusable(rows: pa.RecordBatch, token: str, attempt: int) -> pa.Table:
    """Rows of an answers file as :data:`ANSWER`."""
    text = pc.utf8_trim_whitespace(pc.fill_null(rows.column("text"), ""))
    columns = [rows.column(name) for name in ANSWER.names[:-3]]
    columns.append(arrow.column(np.full(rows.num_rows, attempt, dtype=np.int64)))
    columns.append(custom_ids(token, rows.column("row")))
    columns.append(pc.not_equal(text, pa.scalar("", pa.string())))
    return pa.Table.from_arrays(columns, schema=ANSWER)


def last_answers(places: pa.Table, answers: pa.Table) -> pa.Table:
    """Each place beside the answer that stands last; of equal ones the first of ``answers``.

    Places that nothing is known of are left out.
    """
    attempts = arrow.numbers(answers.column("attempt"))
    stands = standing(answers, attempts)
    index, place = KeyMap(keys_of(places)).positions(keys_of(answers))
    order = np.lexsort((-index, stands[index], place))
    index, place = index[order], place[order]
    last = np.append(place[1:] != place[:-1], np.True_)[: len(place)]
    highest = np.zeros(places.num_rows, dtype=np.int64)
    np.maximum.at(highest, place, attempts[index])
    index, place = index[last], place[last]
    chosen = answers.take(arrow.column(index)).drop_columns(["request_key", "attempt"])
    joined = places.take(arrow.column(place))
    for name in chosen.column_names:
        joined = joined.append_column(chosen.schema.field(name), chosen.column(name))
    return joined.append_column("attempt", arrow.column(highest[place]))


def next_batches(policy: Policy, chain: pa.Table) -> Iterator[tuple[Batch, pa.Table]]:
    """The manifest of each attempt and model that is to be asked, in the records' order."""
    chain = chain.unify_dictionaries().combine_chunks()
    steps, which = next_steps(policy, chain, arrow.numbers(chain.column("attempt")))
    wanted: dict[Batch, list[int]] = {}
    for number, step in enumerate(steps):
        if step is not None:
            wanted.setdefault(Batch(step.attempt, step.claude_model), []).append(number)
    for batch, numbers in sorted(wanted.items(), key=lambda one: (one[0][0], one[0][1] or "")):
        mine = np.flatnonzero(np.isin(which, numbers))
        order = np.lexsort(
            (_numbers(chain, "record_row")[mine], _numbers(chain, "partition")[mine])
        )
        mine = mine[order]
        yield batch, _manifest(chain.take(arrow.column(mine)), batch, steps, which[mine])


def _numbers(table: pa.Table, name: str) -> npt.NDArray[np.int64]:
    return arrow.numbers(table.column(name))


def _manifest(
    chain: pa.Table, batch: Batch, steps: list[Step | None], which: npt.NDArray[np.intp]
) -> pa.Table:
    nothing = Step(batch.attempt)
    known = [step or nothing for step in steps]
    turns = [step.turns for step in known]
    latest = np.array([one == "latest" for one in turns])[which]
    same = np.array([one == "same" for one in turns])[which]
    shown = pc.and_(arrow.column(latest), chain.column("has_text"))
    faulty = pc.if_else(shown, chain.column("custom_id"), pa.scalar(None, pa.string()))
    columns = [
        *(chain.column(name) for name in PLACE.names),
        pa.array([batch.claude_model] * len(which), pa.string()),
        _given([step.max_tokens for step in known], which, pa.int32()),
        pc.if_else(arrow.column(same), chain.column("faulty"), faulty),
        _given([step.failed or None for step in known], which, pa.int16()),
    ]
    return pa.Table.from_arrays(columns, schema=MANIFEST)


def _given(values: list[int | None], which: npt.NDArray[np.intp], type_: pa.DataType) -> Any:
    return pa.array(values, type_).take(arrow.column(which))
