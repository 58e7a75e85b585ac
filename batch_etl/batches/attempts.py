"""The next attempt: what is worth another try goes into further batches of the same transform.

It is planned when all batches before it are collected. What is asked next follows from the answer
that stands last of each question (``chain.py``, ``retry.py``): the transform's own, or one that
failed in another transform and is resumed here. The requests of one attempt and one model fill
payloads in the records' order; each is claimed (no other transform buys its requests) and sent as
soon as it is full.

A request that its further turns have made too large for any batch is left out: its record goes to
review with the answer that it has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from batch_etl import arrow, memory
from batch_etl.batches.answers import Answers, read_answers
from batch_etl.batches.chain import (
    ANSWER,
    PLACE,
    READ,
    Batch,
    last_answers,
    next_batches,
    unusable,
)
from batch_etl.batches.elsewhere import Elsewhere
from batch_etl.batches.exchange import Exchange
from batch_etl.batches.history import kinds_in
from batch_etl.batches.keys import KeySet, from_arrow, halves
from batch_etl.batches.ledger import BatchRow, Lease
from batch_etl.batches.manifest import (
    Asked,
    Filling,
    PlannedBatch,
    keys_of,
    manifest_keys,
    read_manifest,
    rendered_rows,
)
from batch_etl.batches.outcome import KINDS
from batch_etl.batches.packing import fits_alone
from batch_etl.batches.plan import plan_path
from batch_etl.batches.planning import Planning
from batch_etl.batches.retry import Policy
from batch_etl.batches.transform import Transform
from batch_etl.files import read_batches

_NOT_ANSWERED = frozenset(KINDS) - {"Succeeded"}
_ROWS_AT_ONCE = 5_000
"""Requests whose faulty answers are in memory at the same time."""


@dataclass
class Attempts:
    """Plans the later attempts of one endpoint's transforms."""

    exchange: Exchange
    planning: Planning

    def next(self, lease: Lease, transform: Transform) -> bool:
        """Plan another attempt of what is worth it; whether there is anything to wait for."""
        policy = Policy.of(transform.task)
        sent = self.planning.sent(lease)
        bought = self.exchange.answers(lease.transform_id, transform)
        places, answers = self._own(lease, sent, bought)
        resumes = self.exchange.ledger.transform(lease.transform_id).counts.get("resumed", 0) > 0
        if not resumes and not any(next_batches(policy, last_answers(places, answers))):
            return False
        elsewhere = Elsewhere(self.exchange, lease.transform_id, policy, bought)
        if resumes:
            places = pa.concat_tables([places, self._resumed(lease, transform, sent, elsewhere)])
        answers = pa.concat_tables([answers, *_others(places, elsewhere)])
        planned = False
        for batch, manifest in next_batches(policy, last_answers(places, answers)):
            free = ~elsewhere.taken(halves(keys_of(manifest))[0])
            planned |= self._send(
                lease, transform, batch, manifest.filter(arrow.column(free)), elsewhere
            )
        holders = elsewhere.holders()
        if holders:
            self.exchange.ledger.await_batches(lease, holders)
        return planned or bool(holders) or elsewhere.late > 0

    def counts(self, lease: Lease) -> dict[str, int]:
        """How many requests of later attempts were sent as what: what explains the attempts."""
        folder = self.exchange.home.transform(lease.transform_id)
        names = dict(
            zip(Asked._fields, ("stronger_model", "more_tokens", "repaired"), strict=False)
        )
        total = dict.fromkeys([*names.values(), "again"], 0)
        for batch in self.planning.sent(lease):
            if batch.attempt == 1:
                continue
            rows = read_manifest(folder, batch.id, list(names))
            given = {name: arrow.flags(rows.column(name).is_valid()) for name in names}
            for name, kind in names.items():
                total[kind] += int(given[name].sum())
            total["again"] += int((~np.logical_or.reduce(list(given.values()))).sum())
        return {kind: number for kind, number in total.items() if number}

    # what stands last ---------------------------------------------------------------------------

    def _own(
        self, lease: Lease, sent: list[BatchRow], bought: Answers
    ) -> tuple[pa.Table, pa.Table]:
        """The questions that this transform has asked in vain: their places and last answers."""
        folder = self.exchange.home.transform(lease.transform_id)
        places, answers = [PLACE.empty_table()], [ANSWER.empty_table()]
        later = KeySet()
        for batch in sorted(sent, key=lambda one: -one.attempt):
            keys = halves(manifest_keys(folder, batch.id))[0]
            if batch.status == "collected":
                found = self._unanswered(batch, later, bought)
                if found:
                    answers += [unusable(rows, batch.id, batch.attempt) for rows in found]
                    at = pa.chunked_array([rows.column("row") for rows in found])
                    places.append(read_manifest(folder, batch.id, PLACE.names).take(at))
            later.add(keys)
        return pa.concat_tables(places), pa.concat_tables(answers)

    def _unanswered(self, batch: BatchRow, later: KeySet, bought: Answers) -> list[pa.RecordBatch]:
        """Rows of a batch's answers that cannot be used, of questions that no later batch asks."""
        found: list[pa.RecordBatch] = []
        for rows in read_answers(bought, batch.id, READ):
            at = np.flatnonzero(kinds_in(rows, _NOT_ANSWERED))
            keys = from_arrow(rows.column("request_key"))[at]
            at = at[~later.contains(halves(keys)[0])]
            if len(at):
                found.append(rows.take(arrow.column(at)))
        return found

    def _resumed(
        self, lease: Lease, transform: Transform, sent: list[BatchRow], elsewhere: Elsewhere
    ) -> pa.Table:
        """The places of the questions that other transforms have asked in vain, and this not yet.

        The first record that asks a question stands for all that ask the same.
        """
        folder = self.exchange.home.transform(lease.transform_id)
        seen = KeySet(halves(manifest_keys(folder, batch.id))[0] for batch in sent)
        places = [PLACE.empty_table()]
        for ordinal in range(len(transform.partitions)):
            start = 0
            for rows in read_batches(plan_path(folder, ordinal), ["request_key", "record_id"]):
                prefixes = halves(from_arrow(rows.column("request_key")))[0]
                new = elsewhere.resumable.contains(prefixes) & ~seen.contains(prefixes)
                _, first = np.unique(prefixes[new], return_index=True)
                at = np.sort(np.flatnonzero(new)[first])
                seen.add(prefixes[at])
                places.append(_places(rows.take(arrow.column(at)), ordinal, start + at))
                start += rows.num_rows
        return pa.concat_tables(places)

    # what is asked next -------------------------------------------------------------------------

    def _send(
        self,
        lease: Lease,
        transform: Transform,
        asked: Batch,
        manifest: pa.Table,
        elsewhere: Elsewhere,
    ) -> bool:
        """Claim and send the batches of one attempt and one model; whether there are any."""
        planned = False
        blocked_s: float | None = None
        bought = self.exchange.answers(lease.transform_id, transform)
        for batch in self._payloads(transform, manifest, bought):
            claimed = self.planning.claim(
                lease, transform, batch, asked.attempt, elsewhere, claude_model=asked.claude_model
            )
            planned |= claimed is not None
            if claimed is not None and blocked_s is None:
                blocked_s = self.exchange.submit(lease, claimed, transform.task.betas)
            del batch, claimed
            memory.release()
        return planned

    def _payloads(
        self, transform: Transform, manifest: pa.Table, bought: Answers
    ) -> Iterator[PlannedBatch]:
        """A manifest's requests in payloads within the limits, each yielded once it is full."""
        limits = transform.task.packing
        filling = Filling(limits)
        for start in range(0, manifest.num_rows, _ROWS_AT_ONCE):
            part = manifest.slice(start, _ROWS_AT_ONCE)
            columns = [part.column(name).to_pylist() for name in part.column_names]
            rows = list(zip(*columns, strict=True))
            since = "their earlier attempts were planned"
            for row, params in rendered_rows(transform, part, bought, since):
                if not fits_alone(len(params), limits):
                    continue
                if not filling.payload.room.fits(len(params)):
                    yield filling.batch()
                    filling.start()
                key, partition, record_row, record_id, *asked = rows[row]
                filling.add(params, key, partition, record_row, record_id, asked=Asked(*asked))
        if filling.payload.count:
            yield filling.batch()


def _others(places: pa.Table, elsewhere: Elsewhere) -> list[pa.Table]:
    """What stands of these questions in other transforms, where they are to be resumed."""
    prefixes = halves(keys_of(places))[0]
    wanted = KeySet([prefixes[elsewhere.resumable.contains(prefixes)]])
    if not len(wanted):
        return []
    failed = elsewhere.history.failures(wanted, READ)
    return [unusable(rows, token, attempt) for token, attempt, rows in failed]


def _places(plan: pa.RecordBatch, ordinal: int, rows: np.ndarray) -> pa.Table:
    columns = [
        plan.column("request_key"),
        arrow.column(np.full(len(rows), ordinal, dtype=np.int32)),
        arrow.column(rows),
        plan.column("record_id"),
    ]
    return pa.Table.from_arrays(columns, schema=PLACE)
