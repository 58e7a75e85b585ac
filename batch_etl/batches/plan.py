"""Planning: records -> requests -> payloads that nobody has paid for yet.

One pass over the records, in bounded memory (requests with images are rendered a few at a time).
Each record's request is rendered and keyed; a key that was answered before, is in a batch of this
transform already, is being bought by another, or stood earlier in this pass is not sent again; nor
one that another transform has asked in vain: it goes on with its next attempt (``attempts.py``).
What is left fills payloads in the records' order. Beside each payload stands its manifest (row ->
request_key and record), and for each partition a plan (record -> request_key) from which finishing
later fans the answers out.

A record of which no request can be made (its prompt cannot be rendered, or is too large for any
batch) has a problem in the plan, and the others go on; where no prompt at all can be rendered, the
fault is the template's.

The pass can be repeated: killed in the middle and started again, it finds what it planned before
among the keys in flight.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from upath import UPath

from batch_etl import arrow
from batch_etl.batches.errors import RenderError
from batch_etl.batches.keys import KeySet, Mask, halves
from batch_etl.batches.manifest import Filling, PlannedBatch
from batch_etl.batches.outcome import too_large
from batch_etl.batches.packing import fits_alone
from batch_etl.batches.request import KEY_BYTES, Rendered, Renderer, keys_array
from batch_etl.batches.task import Packing
from batch_etl.batches.transform import Partition, Transform
from batch_etl.files import RECORDS_FACT, ParquetSink, content_digest, read_batches

PLAN = pa.schema(
    [
        ("request_key", pa.binary(KEY_BYTES)),
        ("record_id", pa.string()),
        ("problem", pa.string()),  # why no request was made of the record
    ]
)
"""A partition's records, in their order; a record with a problem has the key of zeros."""


@dataclass
class PlanCounts:
    """What became of the records at planning."""

    records: int = 0
    reused: int = 0
    """Answered in an earlier transform."""
    resumed: int = 0
    """Asked in vain in an earlier transform: to go on with the next attempt."""
    shared: int = 0
    """Equal to another record's request, in this pass or in a batch of this transform."""
    sent: int = 0
    """In a payload of this pass."""
    unsendable: int = 0
    """Without a request: the prompt cannot be rendered, or is too large."""


class Others(Protocol):
    """What other transforms have answered, and what they are buying."""

    @property
    def answered(self) -> KeySet:
        """For good: what is not bought again."""
        ...

    @property
    def resumable(self) -> KeySet:
        """What they have asked in vain, and what may be asked again."""
        ...

    @property
    def buying(self) -> KeySet: ...
    @property
    def awaited(self) -> KeySet:
        """What was left out because another is buying it; the plan adds to it."""
        ...

    def before(
        self, transform: Transform, partition: Partition, renderer: Renderer
    ) -> Known | None:
        """What an earlier plan of the partition says of records that have not changed."""
        ...


class Known(Protocol):
    """A partition's records as they were planned before, passed in order."""

    def rendered(self, records: pa.RecordBatch) -> Rendered | None:
        """The requests of the next records, with those rendered of which too little is known.

        None where all are to be rendered.
        """
        ...


def plan_path(folder: UPath, ordinal: int) -> UPath:
    return folder / f"plan-{ordinal:06}.parquet"


def plan(
    transform: Transform, folder: UPath, others: Others, in_flight: KeySet, counts: PlanCounts
) -> Iterator[PlannedBatch]:
    """Yield each payload as soon as it is full; write each partition's plan as it is passed.

    What ``others`` have or buy, and what is ``in_flight``, is not sent; ``in_flight`` grows by what
    is yielded. ``counts`` is filled in place. Raises ``RenderError`` where there are records and no
    prompt of any can be rendered; nothing was yielded then.
    """
    filling = Filling(transform.task.packing)
    prompts = _Prompts()
    for ordinal, partition in enumerate(transform.partitions):
        renderer = transform.renderer(partition)
        facts = {RECORDS_FACT: content_digest(str(partition.records))}
        path = plan_path(folder, ordinal)
        with ParquetSink(path, PLAN, "plan", lean=True, facts=facts) as sink:
            first_row = 0
            before = others.before(transform, partition, renderer)
            for rendered in prompts.of(renderer, partition, before):
                problems = _problems(rendered, transform.task.packing)
                sink.write(_plan_rows(rendered, problems))
                sendable = _without(problems, rendered)
                fresh = _fresh(
                    rendered.keys,
                    sendable,
                    others,
                    in_flight,
                    awaited=others.awaited,
                    counts=counts,
                )
                places = np.flatnonzero(fresh)
                yield from filling.fill(
                    rendered.params.taken(places),
                    rendered.keys[places],
                    ordinal,
                    first_row + places,
                    _at(rendered.record_ids, places),
                )
                first_row += len(rendered)
    prompts.check()
    if filling.payload.count:
        yield filling.batch()


def _at(values: pa.Array[Any], places: npt.NDArray[np.intp]) -> pa.Array[Any]:
    """The values at these ascending places."""
    return values if len(places) == len(values) else values.take(arrow.column(places))


@dataclass
class _Prompts:
    """Whether any prompt can be rendered, and the first that cannot."""

    rendered: int = 0
    refusal: RenderError | None = None

    def of(
        self, renderer: Renderer, partition: Partition, before: Known | None
    ) -> Iterator[Rendered]:
        for records in read_batches(partition.records, renderer.columns):
            known = before.rendered(records) if before is not None else None
            for rendered in renderer.parts(records) if known is None else (known,):
                self.rendered += len(rendered) - len(rendered.problems)
                self.refusal = self.refusal or renderer.refusal(rendered)
                yield rendered

    def check(self) -> None:
        if self.refusal is not None and not self.rendered:
            raise self.refusal


def _problems(rendered: Rendered, limits: Packing) -> dict[int, str]:
    """By row: why no request is sent for a record."""
    problems = {
        row: f"the prompt cannot be rendered: {problem}"
        for row, problem in rendered.problems.items()
    }
    problems |= rendered.faults
    sizes = rendered.params.sizes
    if not fits_alone(int(sizes.max(initial=0)), limits):
        for row, size in enumerate(sizes.tolist()):
            if not fits_alone(size, limits):
                problems[row] = too_large(size, limits.max_bytes).reason or ""
    return problems


def _without(problems: dict[int, str], rendered: Rendered) -> Mask:
    sendable = np.ones(len(rendered), dtype=bool)
    sendable[list(problems)] = False
    return sendable


def _fresh(
    keys: npt.NDArray[np.bytes_],
    sendable: Mask,
    others: Others,
    in_flight: KeySet,
    *,
    awaited: KeySet,
    counts: PlanCounts,
) -> Mask:
    """Which of these requests nobody has sent yet; they are in flight from now on.

    Those that another is buying are added to ``awaited``.
    """
    prefixes, _ = halves(keys)
    counts.records += len(keys)
    counts.unsendable += int((~sendable).sum())
    known = others.answered.contains(prefixes) & sendable
    resumed = others.resumable.contains(prefixes) & sendable & ~known
    sendable = sendable & ~known & ~resumed
    fresh = sendable & ~in_flight.contains(prefixes)
    elsewhere = fresh & others.buying.contains(prefixes)
    awaited.add(prefixes[elsewhere])
    fresh &= ~elsewhere
    _, first = np.unique(prefixes[fresh], return_index=True)
    chosen = np.zeros(len(keys), dtype=bool)
    chosen[np.flatnonzero(fresh)[first]] = True
    in_flight.add(prefixes[chosen])
    counts.reused += int(known.sum())
    counts.resumed += int(resumed.sum())
    counts.sent += int(chosen.sum())
    counts.shared += int((sendable & ~elsewhere & ~chosen).sum())
    return chosen


def _plan_rows(rendered: Rendered, problems: dict[int, str]) -> pa.RecordBatch:
    keys = rendered.keys
    reasons: Any = pa.nulls(len(rendered), pa.string())
    if problems:
        keys = np.where(_without(problems, rendered), keys, b"")
        reasons = pa.array([problems.get(row) for row in range(len(rendered))], pa.string())
    columns = [keys_array(keys), rendered.record_ids, reasons]
    return pa.RecordBatch.from_arrays(columns, schema=PLAN)


# measured only --------------------------------------------------------------------------------

_SAMPLE = 20
"""Requests of which the tokens are counted: spread over all that would be sent."""

_MOST_PROBLEMS = 20
_OTHER_PROBLEMS = "other reasons, which the review queue of a run has"

_SAMPLE_BYTES = 32 * 2**20
"""More of them are not held: requests with images are large."""


@dataclass
class Measured:
    """What a plan would send, found by its pass over the records, without payloads or files."""

    counts: PlanCounts = field(default_factory=PlanCounts)
    params_bytes: int = 0
    """Of all requests that would be sent."""
    largest_bytes: int = 0
    problems: Counter[str] = field(default_factory=Counter[str])
    """Why records could not be sent, and how many of each; many reasons are not told apart."""
    _stride: int = 1
    _spread: list[bytes] = field(default_factory=list[bytes])

    @property
    def requests(self) -> int:
        return self.counts.sent

    @property
    def awaited(self) -> int:
        """Records whose requests another open transform is buying."""
        of = self.counts
        return of.records - of.reused - of.resumed - of.shared - of.sent - of.unsendable

    @property
    def sample(self) -> list[bytes]:
        """The parameters of a few requests, from the first to the last."""
        return self._spread[:: -(-len(self._spread) // _SAMPLE) or 1]

    def note(self, problems: Iterable[str]) -> None:
        """Count reasons: each file that is missing has one of its own."""
        for problem in problems:
            told = problem in self.problems or len(self.problems) < _MOST_PROBLEMS
            self.problems[problem if told else _OTHER_PROBLEMS] += 1

    def add(self, params: bytes, number: int) -> None:
        """Take in the request of this number, counted from 0."""
        self.params_bytes += len(params)
        self.largest_bytes = max(self.largest_bytes, len(params))
        if number % self._stride:
            return
        self._spread.append(params)
        while self._is_too_much():
            self._spread = self._spread[::2]
            self._stride *= 2

    def _is_too_much(self) -> bool:
        held = len(self._spread)
        return held > 2 * _SAMPLE or (held > 1 and sum(map(len, self._spread)) > _SAMPLE_BYTES)


Observer = Callable[[int, Rendered], None]
"""Is shown all records' requests: the partition's ordinal and some of its records, in order."""


def measure(
    transform: Transform, others: Others, in_flight: KeySet, observe: Observer | None = None
) -> Measured:
    """What :func:`plan` would send now; changes nothing, and is done when it returns.

    Raises ``RenderError`` as it does.
    """
    measured = Measured()
    prompts = _Prompts()
    flight, awaited = KeySet([in_flight.all()]), KeySet()
    limits = transform.task.packing
    for ordinal, partition in enumerate(transform.partitions):
        renderer = transform.renderer(partition)
        before = others.before(transform, partition, renderer)
        for rendered in prompts.of(renderer, partition, before):
            if observe is not None:
                observe(ordinal, rendered)
            problems = _problems(rendered, limits)
            measured.note(problems.values())
            number = measured.counts.sent
            sendable = _without(problems, rendered)
            fresh = _fresh(
                rendered.keys, sendable, others, flight, awaited=awaited, counts=measured.counts
            )
            for at in np.flatnonzero(fresh).tolist():
                measured.add(rendered.params[at], number)
                number += 1
    prompts.check()
    return measured
