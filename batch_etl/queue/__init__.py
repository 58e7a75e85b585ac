"""The queue: work items put into a durable table, and drained into partitions.

    table.py      Queue: enqueue, drain, what waits, which drains are open
    tables.py     its tables and their version
    delivery.py   a file, or items from Python -> blocks that are ready for the table

From Python, in any process that knows where the queue is::

    from batch_etl.queue import Queue, enqueue

    with closing(Queue("sqlite:////srv/batch_etl/queue.db")) as queue:
        enqueue(queue, "tickets", [{"ticket_id": 7, "text": "..."}], id="ticket_id")

The items wait until a drain takes all that wait: by the pipeline's sensor, or ``batch-etl run``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from batch_etl.queue.delivery import Wanted, of_file, of_items
from batch_etl.queue.table import WAITING, Drain, Enqueued, Items, Queue, Waiting
from batch_etl.sources.source import OnDuplicate

__all__ = [
    "WAITING",
    "Drain",
    "Enqueued",
    "Items",
    "Queue",
    "Waiting",
    "Wanted",
    "enqueue",
    "enqueue_files",
]


def enqueue(
    queue: Queue,
    pipeline: str,
    items: Iterable[Mapping[str, Any]],
    *,
    id: str,  # noqa: A002 - the word of the YAML
    on_duplicate: OnDuplicate = "refuse",
    key: str | None = None,
) -> Enqueued:
    """Have these items wait for the pipeline, all of them or none.

    ``id`` and ``on_duplicate`` are those of the pipeline's YAML. With a ``key`` the call may be
    repeated after a failure: what was enqueued under it is not enqueued again. Values may be what
    JSON knows, dates, times, decimals and UUIDs. Raises ``QueueError`` and ``SourceError``.
    """
    wanted = Wanted(id, on_duplicate)
    with of_items(items, wanted, key) as delivery:
        return queue.enqueue(pipeline, [delivery], id_name=id, on_duplicate=on_duplicate)[0]


def enqueue_files(
    queue: Queue,
    pipeline: str,
    files: Mapping[str, Path],
    wanted: Wanted,
    *,
    key: str | None = None,
) -> list[Enqueued]:
    """Have the items of these files wait, all of them or none; a file that did is passed over.

    ``files`` are what they are called, and where they lie. Which one is the same is told by its
    content, or by ``key``. Raises ``QueueError`` and ``SourceError``.
    """
    with ExitStack() as stack:
        deliveries = [
            stack.enter_context(of_file(path, wanted, key, origin=name))
            for name, path in files.items()
        ]
        return queue.enqueue(
            pipeline, deliveries, id_name=wanted.id, on_duplicate=wanted.on_duplicate
        )
