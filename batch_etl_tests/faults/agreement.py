"""Do the emulator, the ledger, the files and the table say the same? What must hold at any rest.

The emulator is the one witness that is not the engine's: it says what was received and billed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq

from batch_etl.batches.answers import answers_path, raw_path
from batch_etl.batches.ledger import BatchRow, Ledger
from batch_etl_tests.batches.engine import Site

OVER = frozenset({"collected", "dropped", "lost"})
ENDED = frozenset({"done", "superseded"})
STATES = frozenset({"answered", "review"})


def disagreements(site: Site, ledger: Ledger) -> list[str]:
    """A sentence for each thing that should not be; for a site on which every run has ended."""
    batches = ledger.batches()
    return [
        *_open(ledger, batches),
        *_orphans(site, batches),
        *(wrong for batch in batches if batch.status == "collected" for wrong in _of(site, batch)),
        *_strays(site, batches),
    ]


def _open(ledger: Ledger, batches: list[BatchRow]) -> Iterator[str]:
    for batch in batches:
        if batch.status not in OVER:
            yield f"batch {batch.id} is still {batch.status}"
    for transform in ledger.transforms():
        if transform.status not in ENDED:
            yield f"transform {transform.id} of {transform.pipeline} is still {transform.status}"


def _orphans(site: Site, batches: list[BatchRow]) -> Iterator[str]:
    """Batches at the emulator that the ledger does not know, or that are open there."""
    known = Counter(batch.batch_id for batch in batches if batch.batch_id)
    for batch_id, times in known.items():
        if times > 1:
            yield f"{times} rows of the ledger have batch {batch_id}"
    for batch in site.client().iter_batches():
        if batch.id not in known:
            yield f"batch {batch.id} of {batch.request_counts.total} requests is an orphan"
        if not batch.ended:
            yield f"batch {batch.id} is still {batch.processing_status} at the API"


def _of(site: Site, batch: BatchRow) -> Iterator[str]:
    """A collected batch: its answers and raw lines are there, and its row is their sum."""
    folder = site.home.answers(site.endpoint)
    answers, raw = answers_path(folder, batch.id), raw_path(folder, batch.id)
    if not (answers.exists() and raw.exists()):
        yield f"batch {batch.id} is collected, and its files are not there"
        return
    with pa.CompressedInputStream(pa.OSFile(str(raw), "rb"), "zstd") as whole:
        whole.read()
    rows = pq.read_table(str(answers), columns=["row", "outcome", "cost_usd"])
    if sorted(rows.column("row").to_pylist()) != list(range(batch.requests)):
        yield f"batch {batch.id} has {rows.num_rows} answers to {batch.requests} requests"
    cost = sum((one for one in rows.column("cost_usd").to_pylist() if one), Decimal(0))
    if batch.cost_pico_usd is not None and cost != Decimal(batch.cost_pico_usd).scaleb(-12):
        yield f"batch {batch.id} cost {cost} by its answers, {batch.cost_pico_usd} by the ledger"
    kinds = Counter(rows.column("outcome").to_pylist())
    said = {kind: n for kind, n in (batch.outcomes or {}).items() if not kind.endswith("_lines")}
    if dict(kinds) != said:
        yield f"batch {batch.id} has {dict(kinds)} by its answers, {said} by the ledger"


def _strays(site: Site, batches: list[BatchRow]) -> Iterator[str]:
    """Answers that no batch of the ledger has: they would be read by nobody, and were paid."""
    known = {batch.id for batch in batches if batch.status == "collected"}
    folder = site.home.answers(site.endpoint)
    for path in folder.glob("*.parquet") if folder.exists() else ():
        if path.stem not in known:
            yield f"answers of batch {path.stem} are there, and the ledger has no such batch"


def states(site: Site, pipeline: str | None, keys: list[str]) -> list[str]:
    """What is wrong with the results of these partitions: each record has one terminal state."""
    wrong: list[str] = []
    name = pipeline or site.pipeline
    for key in keys:
        records = pq.read_table(str(site.home.records(name, key)), columns=["id"])
        rows = pq.read_table(
            str(site.home.results(site.endpoint, name, key)),
            columns=["record_id", "record_row", "state"],
        ).to_pylist()
        ids = dict(enumerate(records.column("id").to_pylist()))
        if {row["record_row"]: row["record_id"] for row in rows} != ids or len(rows) != len(ids):
            wrong.append(f"{name}/{key}: {len(rows)} results of {len(ids)} records")
        if not {row["state"] for row in rows} <= STATES:
            wrong.append(f"{name}/{key}: a record is neither answered nor in review")
    return wrong
