"""One running emulator: its settings, what it remembers, and the operations that routes and
control plane share.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from batch_etl.emulator import faults, wire
from batch_etl.emulator.lines import NEW_VERSION, version_fault
from batch_etl.emulator.processing import Ask, Processing, version_of
from batch_etl.emulator.settings import DAY_S, Settings
from batch_etl.emulator.spool import Line, share_lines, write_lines
from batch_etl.emulator.state import Batch, State

logger = logging.getLogger("batch_etl.emulator")

SETTLE_PATIENCE_S = 0.25
"""How long a reply waits for a batch that is due but not made yet; then it says in_progress."""


class Emulator:
    """Start it, serve its app, stop it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.state = State(settings.state, settings.pace)
        self.processing = Processing(self.state, settings.seed, self._ask())
        self._plan_lock = threading.Lock()
        self.plan = faults.read_plan(self.state.setting("faults") or "{}")

    def _ask(self) -> Ask | None:
        url = self.settings.upstream_url
        if url is None:
            return None
        from batch_etl.emulator.upstream import Upstream

        return Upstream(url, self.settings, self.state).answers

    def start(self) -> None:
        self.processing.start()

    def stop(self) -> None:
        self.processing.stop()
        self.state.close()

    # faults

    def strike(self, take: Callable[[faults.Plan], Any]) -> Any:
        """Take chances of the plan; what struck is counted and the plan's progress kept."""
        with self._plan_lock:
            if not self.plan.faults:
                return []
            struck = take(self.plan)
            self.state.put_setting("faults", self.plan)
        for fault in struck:
            self.state.count("fault", fault.kind)
        return struck

    def set_plan(self, plan: faults.Plan) -> None:
        with self._plan_lock:
            self.plan = plan
            self.state.put_setting("faults", plan)

    # batches

    def accept(self, lines: list[Line], received: dict[str, Any], copies: int = 1) -> Batch:
        """A new batch, durable when this returns; with ``copies`` 2, an equal one before it."""
        if received["version"] == NEW_VERSION and self.settings.strict_version == "create":
            _refuse_new_version_faults(lines)
        first = self._accept(lines, received, None)
        return first if copies == 1 else self._accept(lines, received, first)

    def _accept(self, lines: list[Line], received: dict[str, Any], twin: Batch | None) -> Batch:
        batch_id = wire.random_id("msgbatch_emulator_")
        folder = self.state.batch_folder(batch_id)
        if twin is None:
            write_lines(folder, lines)
        else:
            share_lines(self.state.batch_folder(twin.id), folder)
        conditions = self.strike(faults.Plan.for_batch)
        self.state.add(
            id=batch_id,
            total=len(lines),
            received=msgspec.json.encode(received).decode(),
            conditions=msgspec.json.encode(conditions).decode(),
            **self._times(conditions),
        )
        self.processing.want(batch_id)
        return self.state.get(batch_id)

    def _times(self, conditions: list[Any]) -> dict[str, Any]:
        """When the new batch ends and how much of it will be done by then."""
        now_us = self.state.clock.now_us()
        stuck = next((fault for fault in conditions if isinstance(fault, faults.Stuck)), None)
        end_s, finished = self.state.pace.end_s, 1.0
        if stuck is not None:
            end_s, finished = DAY_S, min(stuck.finished, 1 - 1e-9)
        elif end_s > DAY_S:
            end_s, finished = DAY_S, DAY_S / end_s
        elif self.settings.upstream_url is not None:
            return {"created_us": now_us, "due_us": None}
        return {"created_us": now_us, "due_us": now_us + int(end_s * 1e6), "finished": finished}

    def cancel(self, batch: Batch) -> Batch:
        """Start canceling; a batch that is already canceling or ended is left as it is."""
        if batch.status != "in_progress":
            return batch
        now_us = self.state.clock.now_us()
        due_us = now_us + int(self.state.pace.cancel_s * 1e6)
        self.state.cancel(batch, now_us, due_us, self._done_by(batch, now_us))
        self.processing.want(batch.id)
        return self.state.find(batch.id) or batch

    def _done_by(self, batch: Batch, now_us: int) -> float:
        conditions = faults.read_conditions(batch.conditions)
        partial = next((f for f in conditions if isinstance(f, faults.PartialCancel)), None)
        if partial is not None:
            return partial.finished
        return min(1.0, batch.finished * elapsed_share(batch, now_us))

    def delete(self, batch: Batch) -> None:
        self.state.delete(batch, self.state.clock.now_us())
        shutil.rmtree(self.state.batch_folder(batch.id), ignore_errors=True)

    async def settle(
        self, batch_id: str | None = None, patience_s: float = SETTLE_PATIENCE_S
    ) -> None:
        """End what is due; wait a little for what is due but not made (only ``batch_id``, when
        given).
        """
        for _ in range(max(1, int(patience_s / 0.005))):
            late = [batch for batch in self.processing.settle() if batch.due_us is not None]
            if not any(batch_id in (None, batch.id) for batch in late):
                return
            await asyncio.sleep(0.005)

    def results_path(self, batch: Batch) -> Any:
        return self.state.batch_folder(batch.id) / f"{version_of(batch)}.jsonl"

    # what the outside sees

    def archived_us(self, batch: Batch) -> int | None:
        """When the results went; None while they are there."""
        at_us = batch.archive_us
        for fault in faults.read_conditions(batch.conditions):
            if isinstance(fault, faults.Archived) and batch.ended_us is not None:
                at_us = min(at_us, batch.ended_us + int(fault.after_s * 1e6))
        return at_us if batch.status == "ended" and self.state.clock.now_us() >= at_us else None

    def describe(self, batch: Batch, base_url: str) -> dict[str, Any]:
        """The MessageBatch object: ten fields, in the order of the wire."""
        archived_us = self.archived_us(batch)
        path = f"/v1/messages/batches/{batch.id}/results"
        has_results = batch.status == "ended" and archived_us is None
        described: dict[str, Any] = {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": batch.status,
            "request_counts": self._counts(batch),
            "ended_at": wire.rfc3339(batch.ended_us),
            "created_at": wire.rfc3339(batch.created_us),
            "expires_at": wire.rfc3339(batch.expires_us),
            "archived_at": wire.rfc3339(archived_us),
            "cancel_initiated_at": wire.rfc3339(batch.cancel_us),
            "results_url": base_url + path if has_results else None,
        }
        if '"unknown_fields"' in batch.conditions:
            described["x_emulator_unknown"] = {"nobody": ["has", "heard", "of", "this"]}
        return described

    def _counts(self, batch: Batch) -> dict[str, int]:
        if batch.status == "ended":
            done = [batch.succeeded, batch.errored, batch.canceled, batch.expired]
        elif self.state.pace.gradual:
            share = batch.finished * elapsed_share(batch, self.state.clock.now_us())
            done = [int(batch.total * share), 0, 0, 0]
        else:
            done = [0, 0, 0, 0]
        names = ("processing", "succeeded", "errored", "canceled", "expired")
        return dict(zip(names, [batch.total - sum(done), *done], strict=True))


def elapsed_share(batch: Batch, now_us: int) -> float:
    """How far an open batch is on its way to its end, by time."""
    if batch.due_us is None:
        return 0.0
    whole_us = max(1, batch.due_us - batch.created_us)
    return min(1.0, max(0.0, (now_us - batch.created_us) / whole_us))


def _refuse_new_version_faults(lines: list[Line]) -> None:
    for position, line in enumerate(lines):
        params = msgspec.json.decode(line.params)
        fault = version_fault(params) if isinstance(params, dict) else None
        if fault:
            raise wire.invalid(f"requests.{position}.params.{fault}")


def sha256(body: bytes | bytearray) -> str:
    return hashlib.sha256(body).hexdigest()
