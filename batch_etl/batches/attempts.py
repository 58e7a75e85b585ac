"""The next attempt: what is worth another try goes into further batches of the same transform.

An attempt is planned when all batches before it are collected. Its requests are those whose latest
outcome is worth it (``retry.py``) and that no other transform has answered or is buying.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from batch_etl.batches.answers import read_answers
from batch_etl.batches.elsewhere import Elsewhere
from batch_etl.batches.exchange import Exchange
from batch_etl.batches.keys import KeySet, from_arrow, halves
from batch_etl.batches.ledger import BatchRow, Lease
from batch_etl.batches.manifest import keys_of, manifest_keys, read_manifest, render_again
from batch_etl.batches.planning import Planning
from batch_etl.batches.request import new_token
from batch_etl.batches.retry import worth_another_try
from batch_etl.batches.transform import Transform


@dataclass
class Attempts:
    """Plans the later attempts of one endpoint's transforms."""

    exchange: Exchange
    planning: Planning

    def next(self, lease: Lease, transform: Transform) -> bool:
        """Plan another attempt of what is worth it; whether there is anything to wait for."""
        sent = self.planning.sent(lease)
        elsewhere: Elsewhere | None = None
        planned = False
        for batch in sent:
            if batch.attempt >= transform.task.max_attempts or batch.status != "collected":
                continue
            manifest = self._again(lease, batch, [b for b in sent if b.attempt > batch.attempt])
            if not manifest.num_rows:
                continue
            elsewhere = elsewhere or Elsewhere(self.exchange, lease.transform_id)
            free = ~elsewhere.taken(halves(keys_of(manifest))[0])
            manifest = manifest.filter(pa.array(free))
            if manifest.num_rows:  # a part of a payload, so it fits one
                again = render_again(transform, new_token(), manifest)
                claimed = self.planning.claim(lease, transform, again, batch.attempt + 1, elsewhere)
                planned |= claimed is not None
        holders = elsewhere.holders() if elsewhere else []
        if holders:
            self.exchange.ledger.await_batches(lease, holders)
        if planned:
            self.planning.settle(lease, transform)
        return planned or bool(holders)

    def _again(self, lease: Lease, batch: BatchRow, later: list[BatchRow]) -> pa.Table:
        """The manifest's rows that are worth another try and in no later attempt yet."""
        folder = self.exchange.home.transform(lease.transform_id)
        tried = KeySet(halves(manifest_keys(folder, one.id))[0] for one in later)
        answers_folder = self.exchange.home.answers(self.exchange.endpoint.name)
        rows: list[int] = []
        for answers in read_answers(answers_folder, batch.id):
            kinds = answers.column("outcome").to_pylist()
            errors = answers.column("error_type").to_pylist()
            done = tried.contains(halves(from_arrow(answers.column("request_key")))[0])
            own = answers.column("row").to_pylist()
            rows += [
                row
                for row, kind, error, again in zip(own, kinds, errors, done, strict=True)
                if worth_another_try(kind, error) and not again
            ]
        return read_manifest(folder, batch.id).take(pa.array(sorted(rows), pa.int64()))
