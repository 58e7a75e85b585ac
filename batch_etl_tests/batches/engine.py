"""What the engine's tests share: records on disk, a task, and a runner before a real emulator.

The emulator's own count of what was received and billed (``/_emulator/status``) judges. A kill is a
real SIGKILL of a real process: :class:`MortalLedger` ends its process at the n-th change of state,
just before or just after that change is committed.
"""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.process
import os
import signal
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import httpx
import pyarrow as pa
import pyarrow.parquet as pq

from batch_etl.batches.client import Client
from batch_etl.batches.exchange import Endpoint, Exchange
from batch_etl.batches.ledger import Ledger
from batch_etl.batches.pricing import PriceList
from batch_etl.batches.runner import Progress, Runner, Summary
from batch_etl.batches.task import Task
from batch_etl.batches.transform import Partition, Transform
from batch_etl.emulator.server import running
from batch_etl.emulator.settings import Pace
from batch_etl.files import Home, replacing

KEY = "test-key-0123456789"
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
SENTIMENT: dict[str, Any] = {
    "type": "object",
    "required": ["sentiment"],
    "properties": {
        "sentiment": {
            "type": "string",
            "enum": ["positive", "negative"],
            "description": "positive: love great; negative: hate bad",
        }
    },
}
DEFINITION: dict[str, Any] = {
    "claude_model": "claude-haiku-4-5",
    "max_tokens": 100,
    "prompt": "Classify:\n{{ text }}",
    "output_schema": SENTIMENT,
}


def task(**changes: Any) -> Task:
    """The tests' task; a change to None removes the key."""
    values = {**DEFINITION, **changes}
    return Task.load({key: value for key, value in values.items() if value is not None}, "task")


def rows(count: int, texts: int | None = None, start: int = 0) -> list[dict[str, Any]]:
    """Records with ids r0, r1, ...; their texts repeat after ``texts``."""
    numbers = range(start, start + count)
    return [{"id": f"r{i}", "text": f"I love item {i % (texts or 10**9)}"} for i in numbers]


def write_records(path: Any, records: Sequence[dict[str, Any]]) -> None:
    """One partition's Parquet file, put into place as extracting does.

    An empty one has the columns id and text.
    """
    empty = pa.table({"id": pa.array([], pa.string()), "text": pa.array([], pa.string())})
    with replacing(path, "records") as temporary:
        pq.write_table(pa.Table.from_pylist(list(records)) if records else empty, str(temporary))


@dataclass
class Site:
    """One home before one server: what a user has on one machine."""

    root: Path
    url: str
    endpoint: str = "emulator"
    grace_s: float = 0.0
    lease_s: float = 30.0
    pipeline: str = "reviews"
    ledger_url: str | None = None
    """Where the ledger is; None: in the home, on SQLite."""
    key: str = field(default=KEY, repr=False)
    _opened: list[Any] = field(default_factory=list[Any])

    @property
    def home(self) -> Home:
        return Home.at(self.root)

    def transform(
        self,
        records: Sequence[dict[str, Any]] | dict[str, Sequence[dict[str, Any]]] | None = None,
        *,
        pipeline: str | None = None,
        keys: Sequence[str | None] = (None,),
        delete_collected: bool = False,
        **changes: Any,
    ) -> Transform:
        """A transform over ``records`` (a dict: by partition), written first unless None."""
        name = pipeline or self.pipeline
        if isinstance(records, dict):
            keys = list(records)
            for key, part in records.items():
                write_records(self.home.records(name, key), part)
        elif records is not None:
            write_records(self.home.records(name, None), records)
        parts = tuple(Partition(key, self.home.records(name, key)) for key in keys)
        return Transform(name, task(**changes), "id", parts, delete_collected=delete_collected)

    def ledger(self, kind: Callable[..., Ledger] = Ledger, **options: Any) -> Ledger:
        self.root.mkdir(parents=True, exist_ok=True)
        url = self.ledger_url or f"sqlite:///{self.home.ledger}"
        ledger = kind(url, lease_s=self.lease_s, **options)
        self._opened.append(ledger)
        return ledger

    def client(self, **options: Any) -> Client:
        client = Client(
            self.url,
            api_key=self.key,
            allow_emulator=True,
            sleep=lambda s: time.sleep(min(s, 0.01)),
            **options,
        )
        self._opened.append(client)
        return client

    def exchange(self, ledger: Ledger | None = None) -> Exchange:
        endpoint = Endpoint(self.endpoint, self.client())
        return Exchange(
            self.home, ledger or self.ledger(), endpoint, PriceList(), grace_s=self.grace_s
        )

    def runner(self, ledger: Ledger | None = None) -> Runner:
        return Runner(self.exchange(ledger))

    def run(self, transform: Transform, runner: Runner | None = None) -> Summary:
        """Advance to the end, as a run of the asset does."""
        runner = runner or self.runner()
        identity = runner.open(transform)
        until_done(runner, identity, transform)
        return runner.summary(identity, transform)

    def results(self, key: str | None = None, pipeline: str | None = None) -> list[dict[str, Any]]:
        path = self.home.results(self.endpoint, pipeline or self.pipeline, key)
        return sorted(pq.read_table(str(path)).to_pylist(), key=lambda row: row["record_row"])

    # the emulator's control plane

    def status(self) -> dict[str, Any]:
        return self._control("GET", "status")

    @property
    def bill(self) -> tuple[int, int, int]:
        """Requests received, billed, and billed twice, by the emulator's own count."""
        status = self.status()
        names = ("requests_received", "requests_billed", "requests_billed_twice")
        received, billed, twice = (status[name] for name in names)
        return received, billed, twice

    def received(self, batch_id: str) -> list[dict[str, Any]]:
        """The lines of a batch, each with its custom_id and params, as they came."""
        with httpx.Client(verify=_NO_TLS, trust_env=False, timeout=60.0) as http:
            reply = http.get(f"{self.url}/_emulator/batches/{batch_id}/received")
        _, *lines = reply.raise_for_status().text.splitlines()
        return [json.loads(line) for line in lines]

    def faults(self, *faults: dict[str, Any]) -> None:
        self._control("PUT", "faults", {"faults": list(faults)})

    def pace(self, **pace: Any) -> None:
        self._control("POST", "pace", pace)

    def clock(self, **change: Any) -> None:
        self._control("POST", "clock", change)

    def _control(self, method: str, name: str, body: dict[str, Any] | None = None) -> Any:
        """Over plain http without TLS's authorities, which take 0.1 s to load."""
        with httpx.Client(verify=_NO_TLS, trust_env=False, timeout=60.0) as http:
            reply = http.request(method, f"{self.url}/_emulator/{name}", json=body)
        return reply.raise_for_status().json()

    def again(self, **changes: Any) -> Site:
        """The same home before the same server, with nothing open: for another process."""
        return replace(self, _opened=[], **changes)

    def close(self) -> None:
        while self._opened:
            self._opened.pop().close()


@contextmanager
def site(root: Path, *, end_s: float = 0.0, **options: Any) -> Iterator[Site]:
    """A home below ``root`` and an emulator of its own, whose batches end after ``end_s``."""
    pace = Pace(end_s=end_s, cancel_s=0.0, retry_after_s=0.01)
    with running(root / "emulator", pace=pace) as url:
        opened = Site(root / "home", url, **options)
        try:
            yield opened
        finally:
            opened.close()


def billed_usd(site: Site) -> Decimal:
    """What the ledger says that all batches cost."""
    pico = sum(batch.cost_pico_usd or 0 for batch in site.ledger().batches())
    return Decimal(pico).scaleb(-12)


def until_done(runner: Runner, identity: str, transform: Transform, steps: int = 400) -> Progress:
    progress = runner.advance(identity, transform)
    for _ in range(steps):
        if progress.done:
            return progress
        time.sleep(min(progress.wait_s, 0.02))
        progress = runner.advance(identity, transform)
    raise AssertionError(f"not done after {steps} steps: {progress}")


class MortalLedger(Ledger):
    """A ledger that kills its process (SIGKILL) at its ``at``-th change of state."""

    def __init__(self, url: str, *, at: int, when: Literal["before", "after"], lease_s: float):
        super().__init__(url, lease_s=lease_s)
        self._left = at
        self._when = when

    def _change(self, make: Callable[[], Any]) -> Any:
        self._left -= 1
        if self._left == 0 and self._when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        made = make()
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return made

    def create_transform(self, **values: Any) -> str:
        make = super().create_transform
        return self._change(lambda: make(**values))

    def move_transform(self, *place: Any, **values: Any) -> None:
        make = super().move_transform
        self._change(lambda: make(*place, **values))

    def add_batch(self, *place: Any, **values: Any) -> list[str]:
        make = super().add_batch
        return self._change(lambda: make(*place, **values))

    def move_batch(self, *place: Any, **values: Any) -> None:
        make = super().move_batch
        self._change(lambda: make(*place, **values))


def run_in_process(own: Site, changes: dict[str, Any], death: dict[str, Any] | None) -> None:
    """The child's work: run the transform over the records that are there, unless killed."""
    ledger = own.ledger(MortalLedger, **death) if death else own.ledger()
    own.run(own.transform(None, **changes), own.runner(ledger))
    own.close()


_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__])


@contextmanager
def child(
    place: Site, death: dict[str, Any] | None = None, **changes: Any
) -> Iterator[multiprocessing.process.BaseProcess]:
    """A process that runs ``place``'s transform; it is dead at the end of the ``with``."""
    with in_process(run_in_process, place.again(), changes, death) as process:
        yield process


@contextmanager
def in_process(
    work: Callable[..., None], *arguments: object
) -> Iterator[multiprocessing.process.BaseProcess]:
    """A process that does ``work``; it is dead at the end of the ``with``."""
    process = _FORKS.Process(target=work, args=arguments)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join(30)
        process.close()
