"""The program that is measured: the real engine, from records to the table, with everything on.

Ledger, manifests, reuse, validation, raw results kept. ``die`` ends the process (SIGKILL) when all
is submitted and nothing collected. Like the command line, the process is made lean before anything
else is imported.
"""

from __future__ import annotations

from batch_etl import memory

if __name__ == "__main__":
    memory.lean_process()

import functools
import inspect
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batch_etl.batches.client import Client
from batch_etl.batches.exchange import Endpoint, Exchange
from batch_etl.batches.ledger import Ledger
from batch_etl.batches.pricing import PriceList
from batch_etl.batches.runner import Runner
from batch_etl.batches.task import Task
from batch_etl.batches.transform import Partition, Transform
from batch_etl.files import Home
from batch_etl.warehouse import PartitionLoad, TableSpec, Warehouse
from batch_etl_tests.benchmarks import workload
from batch_etl_tests.benchmarks.programs import Order, parsed
from batch_etl_tests.benchmarks.watch import Watch

NAME = "posts"
ENDPOINT = "emulator"


class Watched(Exchange):
    """An exchange whose collecting is a stage of its own within ``advance``."""

    watch: Watch

    def poll(self, *place: Any, **named: Any) -> float:
        """Collect what has ended."""
        with self.watch.stage("collect"):
            return super().poll(*place, **named)


def watched_ledger(url: str, watch: Watch) -> Ledger:
    """A ledger whose calls, on the main thread, are a stage of their own."""

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*place: Any, **named: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return method(*place, **named)
            with watch.stage("ledger"):
                return method(*place, **named)

        return call

    methods = dict(inspect.getmembers(Ledger, inspect.isfunction))
    public = {name: timed(method) for name, method in methods.items() if name[0] != "_"}
    with watch.stage("ledger"):
        return type("WatchedLedger", (Ledger,), public)(url)


def task() -> Task:
    """Tried once: a retry would be one more batch, which the other programs do not send."""
    return Task.load(
        {
            "claude_model": workload.MODEL,
            "max_tokens": workload.MAX_TOKENS,
            "system": workload.SYSTEM,
            "prompt": workload.PROMPT,
            "output_schema": workload.SCHEMA,
            "max_attempts": 1,
        },
        "the benchmark's task",
    )


def run(order: Order, watch: Watch) -> object:
    """Records -> answers -> table; what is in the table."""
    home = Home.at(order.folder / "home")
    Path(str(home.root)).mkdir(parents=True, exist_ok=True)
    records = home.records(NAME, None)
    if not records.exists():
        Path(str(records)).parent.mkdir(parents=True, exist_ok=True)
        os.link(order.records, str(records))
    transform = Transform(NAME, task(), workload.ID, (Partition(None, records),))
    client = Client(order.url, api_key=workload.KEY, allow_emulator=True)
    ledger = watched_ledger(f"sqlite:///{home.ledger}", watch)
    with client:
        exchange = Watched(home, ledger, Endpoint(ENDPOINT, client), PriceList(), grace_s=0.0)
        exchange.watch = watch
        _answer(Runner(exchange), transform, order, watch)
    ledger.close()
    with watch.stage("load"):
        return _load(home, order.folder)


def _answer(runner: Runner, transform: Transform, order: Order, watch: Watch) -> None:
    with watch.stage("plan+submit"):
        transform_id = runner.open(transform)
        progress = runner.advance(transform_id, transform)
    while not progress.done:
        if order.die:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0 if progress.batches_open else 0.01)
        watch.prepare()
        with watch.stage("finish"):
            progress = runner.advance(transform_id, transform)


def _load(home: Home, folder: Path) -> object:
    spec = TableSpec(NAME, workload.ID, output_schema=workload.SCHEMA, columns=workload.SHOWN)
    load = PartitionLoad(None, home.records(NAME, None), home.results(ENDPOINT, NAME, None))
    warehouse = Warehouse(home.warehouse_working, home.warehouse)
    warehouse.load(spec, ENDPOINT, [load])
    warehouse.publish()
    import duckdb

    with duckdb.connect(str(home.warehouse), read_only=True) as connection:
        return connection.execute(workload.CHECK.format(table=f"{ENDPOINT}.{NAME}")).fetchone()


if __name__ == "__main__":
    order, watch = parsed()
    watch.report(run(order, watch))
