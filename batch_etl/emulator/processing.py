"""Batches become results files, and their successful lines a bill.

A worker thread takes the open batches in the order of their creation and writes each one's results
whole, in seeded shuffled order, before its end is due: a poll then only compares times. What a
batch's results are depends on its ``version`` alone (which share of its lines was done, and what
the rest became), so a cancel or an expiry asks for another version, and a restart makes the same
file again. ``settle`` ends what is due and ready; counts and bill are written in the same
statement as the end, hence once.

Memory: 8 bytes a line for offsets, 4 for the order, 32 for the digests, and one block of a
megabyte. Billed lines are kept as 16-byte digests of their canonical params, one file a batch;
purchases made twice are counted when asked for.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from batch_etl.emulator import faults
from batch_etl.emulator.lines import Terms
from batch_etl.emulator.outcomes import Examiner, Outcome
from batch_etl.emulator.prompt_cache import TTL_S, Live, PromptCache
from batch_etl.emulator.spool import BLOCK_BYTES, Spool
from batch_etl.emulator.state import Batch, State

logger = logging.getLogger("batch_etl.emulator")

COUNTERS = ("succeeded", "errored", "canceled", "expired", "billed")
RETRY_S = 5.0
Counts = dict[str, int]
Ask = Callable[[Batch, Spool, Callable[[], bool]], Callable[[str, dict[str, Any]], Any]]


class Withdrawn(Exception):
    """The version that was being made is no longer wanted."""


def version_of(batch: Batch) -> str:
    """Names the results that the batch's row asks for."""
    return f"{batch.rest}-{batch.finished:.9f}"


class Processing:
    """The worker and what it has ready. ``ask``: prepares answers from elsewhere (upstream)."""

    def __init__(self, state: State, seed: int, ask: Ask | None = None) -> None:
        self._state = state
        self._seed = seed
        self._ask = ask
        self._wanted: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._ending = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="emulator-processing", daemon=True)

    def start(self) -> None:
        for batch in self._state.unended():
            self.want(batch.id)
        self._thread.start()

    def stop(self) -> None:
        """Leave the batch at hand for the next start; waits for the thread."""
        self._stopping.set()
        self._wanted.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout=30)

    def want(self, batch_id: str) -> None:
        self._wanted.put(batch_id)

    # the worker

    def _work(self) -> None:
        while (batch_id := self._wanted.get()) is not None and not self._stopping.is_set():
            try:
                self._make_ready(batch_id)
            except Withdrawn:
                continue
            except Exception:  # a full disk, say: it may be better in a while
                logger.exception("the emulator could not process %s", batch_id)
                self._stopping.wait(RETRY_S)
                self.want(batch_id)

    def _make_ready(self, batch_id: str) -> None:
        batch = self._state.find(batch_id)
        if batch is None or batch.status == "ended" or self.ready(batch) is not None:
            return
        folder = self._state.batch_folder(batch.id)
        with Spool(folder) as spool:
            examiner = self._examiner(batch, spool)
            outcomes = self._shuffled(batch, spool, examiner)
            digests = self._digests(batch)
            counts = write_results(folder, version_of(batch), outcomes, batch.total, digests)
            self._keep_cached(batch, examiner.cache)
            put(folder / f"{version_of(batch)}.counts", msgspec.json.encode(counts))

    def _examiner(self, batch: Batch, spool: Spool) -> Examiner:
        received = msgspec.json.decode(batch.received)
        conditions = faults.read_conditions(batch.conditions)
        ask = self._ask(batch, spool, lambda: self._withdrawn(batch)) if self._ask else None
        return Examiner(
            seed=self._seed,
            terms=Terms(received["version"], frozenset(received["betas"])),
            conditions=conditions,
            finished=batch.finished if ask is None else 1.0,
            rest=batch.rest,
            earlier=self._asked_before(batch) if _counts_attempts(conditions) else {},
            ask=ask,
            cache=PromptCache(lambda: self._cached_before(batch)),
        )

    def _cached_before(self, batch: Batch) -> Live:
        """Prefixes that batches used which ended before this one was created, while they live."""
        live: dict[bytes, str] = {}
        for earlier in self._state.everything():
            ended_us = earlier.due_us if earlier.ended_us is None else earlier.ended_us
            for ttl, ttl_s in TTL_S.items():
                path = self._state.digests(earlier, f"prefixes-{ttl}")
                idle_us = -1 if ended_us is None else batch.created_us - ended_us
                if 0 <= idle_us <= ttl_s * 1_000_000 and path.exists():
                    live.update(dict.fromkeys(digests_in(path.read_bytes()), ttl))
        return live

    def _keep_cached(self, batch: Batch, cache: PromptCache) -> None:
        for ttl in TTL_S:
            if touched := [digest for digest, own in cache.touched.items() if own == ttl]:
                put(self._state.digests(batch, f"prefixes-{ttl}"), b"".join(touched))

    def _shuffled(
        self, batch: Batch, spool: Spool, examiner: Examiner
    ) -> Iterator[tuple[int, Outcome]]:
        order = array("I", range(len(spool)))
        random.Random(f"{self._seed}:{batch.seq}").shuffle(order)  # noqa: S311
        for n, position in enumerate(order):
            if n % 256 == 0 and self._withdrawn(batch):
                raise Withdrawn
            yield position, examiner.outcome(*spool[position])

    def _withdrawn(self, batch: Batch) -> bool:
        if self._stopping.is_set():
            return True
        now = self._state.find(batch.id)
        return now is None or version_of(now) != version_of(batch)

    def _digests(self, batch: Batch) -> tuple[Path, Path]:
        return self._state.digests(batch, "questions"), self._state.digests(batch, "billed")

    def _asked_before(self, batch: Batch) -> Counter[bytes]:
        """How often each question was sent in batches before this one."""
        asked: Counter[bytes] = Counter()
        for earlier in self._state.everything():
            path = self._state.digests(earlier, "questions")
            if earlier.seq < batch.seq and path.exists():
                asked.update(digests_in(path.read_bytes()))
        return asked

    # ends

    def ready(self, batch: Batch) -> Counts | None:
        """The counts of the wanted version, once its results lie there."""
        path = self._state.batch_folder(batch.id) / f"{version_of(batch)}.counts"
        return msgspec.json.decode(path.read_bytes()) if path.exists() else None

    def settle(self) -> list[Batch]:
        """End every batch that is due and ready; gives those that are due and not ready."""
        now_us = self._state.clock.now_us()
        with self._ending:
            return [batch for batch in self._state.due(now_us) if not self._end(batch, now_us)]

    def _end(self, batch: Batch, now_us: int) -> bool:
        if batch.due_us is None and now_us >= batch.expires_us:
            self._state.hold_to(batch, batch.expires_us)
            self.want(batch.id)
            return False
        counts = self.ready(batch)
        if counts is None:
            return False
        ended_us = batch.due_us if batch.due_us is not None else min(now_us, batch.expires_us)
        self._state.end(batch, ended_us, counts)
        return True

    # the bill

    def bought_twice(self) -> int:
        """Lines that were bought although the same params had been bought before."""
        paths = [self._state.digests(batch, "billed") for batch in self._state.ended()]
        data = b"".join(path.read_bytes() for path in paths if path.exists())
        return len(data) // 16 - _distinct(data) if data else 0


def _counts_attempts(conditions: list[faults.BatchFaults | faults.LineFaults]) -> bool:
    return any(isinstance(f, faults.LineFault) and f.attempts is not None for f in conditions)


def _distinct(data: bytes) -> int:
    """How many different 16-byte digests; sorted as two columns, 16 bytes a digest in memory."""
    import numpy as np

    pairs = np.frombuffer(data, dtype=np.uint64).reshape(-1, 2)
    ordered = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return 1 + int(np.any(ordered[1:] != ordered[:-1], axis=1).sum())


def digests_in(data: bytes) -> list[bytes]:
    return [data[n : n + 16] for n in range(0, len(data), 16)]


def write_results(
    folder: Path,
    version: str,
    outcomes: Iterator[tuple[int, Outcome]],
    total: int,
    digests: tuple[Path, Path],
) -> Counts:
    """Results, and the digests of questions and of billed params; gives the counts, which the
    caller puts beside them when all is there.
    """
    counts: Counts = dict.fromkeys(COUNTERS, 0)
    questions = bytearray(16 * total)
    billed = bytearray()
    temporary = folder / f"{version}.jsonl.tmp"
    with open(temporary, "wb", buffering=BLOCK_BYTES) as file:
        for position, outcome in outcomes:
            counts[outcome.kind] += 1
            counts["billed"] += outcome.billed
            questions[16 * position : 16 * position + 16] = outcome.question
            if outcome.billed:
                billed += outcome.params_digest
            if outcome.lines:
                file.write(outcome.line * outcome.lines)
    temporary.replace(folder / f"{version}.jsonl")
    put(digests[0], bytes(questions))
    put(digests[1], bytes(billed))
    return counts


def put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)
