"""Several real processes on one queue: they race, and die between any two steps."""

from __future__ import annotations

import os
import signal
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy.event

from batch_etl.queue import Queue, Wanted, enqueue, enqueue_files
from batch_etl.queue.delivery import Delivery, of_file
from batch_etl_tests.batches.test_ledger_processes import child, children

ITEMS = 60
AT_A_TIME = 7


def race(pipe: Any, url: str, number: int) -> None:
    """Enqueue and drain by turns; tell which drains were made."""
    with closing(Queue(url)) as queue:
        pipe.send("ready")
        pipe.recv()
        made: list[tuple[str, int]] = []
        for start in range(0, ITEMS, AT_A_TIME):
            items = [{"id": f"{number}-{n}"} for n in range(start, min(start + AT_A_TIME, ITEMS))]
            enqueue(queue, "p", items, id="id")
            drain = queue.drain("p")
            made += [(drain.key, drain.items)] if drain else []
        pipe.send(made)


def raced(url: str, count: int) -> list[tuple[str, int]]:
    made: list[tuple[str, int]] = []
    with children(count, _numbered, url) as processes:
        for number, process in enumerate(processes):
            process.send(number)
        assert [process.answer() for process in processes] == ["ready"] * count
        for process in processes:
            process.send("go")
        for process in processes:
            made += process.answer()
    return made


def _numbered(pipe: Any, url: str) -> None:
    race(pipe, url, pipe.recv())


def ids_of(queue: Queue, key: str) -> list[str]:
    items = queue.items_of("p")
    texts = [
        text
        for kind in items.kinds(key)
        for batch in items.batches(key, kind)
        for text in batch.column(0).to_pylist()
    ]
    return [text.split('"')[3] for text in texts]


def test_of_processes_that_enqueue_and_drain_at_once_each_item_is_in_one_drain(url: str) -> None:
    Queue(url).close()
    made = raced(url, 3)
    with closing(Queue(url)) as queue:
        queue.drain("p")
        drains = {drain.key: drain.items for drain in queue.drains("p")}
        assert set(made) <= set(drains.items())
        assert len({key for key, _ in made}) == len(made)
        found = {key: ids_of(queue, key) for key in drains}
    assert {key: len(ids) for key, ids in found.items()} == drains
    every = sorted(name for ids in found.values() for name in ids)
    assert every == sorted(f"{number}-{n}" for number in range(3) for n in range(ITEMS))


def die_after_draining(pipe: Any, url: str) -> None:
    with closing(Queue(url)) as queue:
        queue.drain("p")
        _die(None)


def die_within_draining(pipe: Any, url: str) -> None:
    """All is written, and nothing committed."""
    with closing(Queue(url)) as queue:
        sqlalchemy.event.listen(queue._engine, "commit", _die)
        queue.drain("p")


def _die(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_within_enqueueing(pipe: Any, url: str, path: str) -> None:
    class Dying(Delivery):
        def blocks(self) -> Any:
            yield next(super().blocks())
            _die(None)

    with closing(Queue(url)) as queue, of_file(Path(path), Wanted("id"), None, origin="f") as one:
        queue.enqueue("p", [Dying(**vars(one))], id_name="id")


def ended(work: Any, *arguments: Any) -> None:
    """Wait until the process has killed itself."""
    with child(work, *arguments) as process:
        try:
            process.answer()
        except EOFError:
            return
    raise AssertionError("it should have died")


def test_a_drain_whose_maker_was_killed_before_asking_is_found_open(url: str) -> None:
    with closing(Queue(url)) as queue:
        enqueue(queue, "p", [{"id": "a"}, {"id": "b"}], id="id")
        ended(die_after_draining, url)
        (drain,) = queue.open_drains("p")
        assert (drain.items, drain.asked_at) == (2, None)
        assert queue.claim("p", drain.key, lost_after_s=60)
        assert queue.drain("p") is None
        assert ids_of(queue, drain.key) == ["a", "b"]


def test_a_process_killed_before_its_commit_has_drained_nothing(url: str) -> None:
    with closing(Queue(url)) as queue:
        enqueue(queue, "p", [{"id": "a"}], id="id")
        ended(die_within_draining, url)
        assert queue.waiting("p").items == 1
        assert queue.drain("p") is not None


def test_an_enqueue_that_was_killed_half_way_is_repeated_whole(url: str, tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text("".join(f'{{"id": "{n}"}}\n' for n in range(5_000)))
    with closing(Queue(url)) as queue:
        ended(die_within_enqueueing, url, str(path))
        assert queue.waiting("p").items == 0
        for already in (False, True):
            (done,) = enqueue_files(queue, "p", {"f": path}, Wanted("id"))
            assert (done.already is not None) is already
        assert queue.waiting("p").items == 5_000
