"""Several real processes on one ledger: they open it, race, stop and die."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from batch_etl.batches.errors import LedgerError
from batch_etl.batches.ledger import Ledger
from batch_etl.batches.migrations import MIGRATIONS
from batch_etl_tests.batches import engine
from batch_etl_tests.batches.test_ledger import add, held, new_transform
from batch_etl_tests.batches.test_migrations import add_note, connection, open_ledger, version

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([engine.__name__, __name__])


@dataclass(frozen=True)
class Child:
    """A process that answers what it is sent."""

    pid: int
    pipe: Any

    def send(self, message: object) -> None:
        self.pipe.send(message)

    def answer(self) -> Any:
        assert self.pipe.poll(60), "the process does not answer"
        return self.pipe.recv()

    def stopped(self) -> None:
        """Wait until SIGSTOP has reached it."""
        stat = Path(f"/proc/{self.pid}/stat")
        while stat.read_text("ascii", "replace").rpartition(")")[2].split()[0] != "T":
            time.sleep(0.01)


@contextmanager
def child(work: Callable[..., None], *arguments: object) -> Iterator[Child]:
    """A process that does ``work(pipe, ...)``; it is dead at the end of the ``with``."""
    here, there = _FORKS.Pipe()
    process = _FORKS.Process(target=work, args=(there, *arguments))
    process.start()
    there.close()
    assert process.pid is not None
    try:
        yield Child(process.pid, here)
    finally:
        process.kill()
        process.join(30)
        process.close()
        here.close()


@contextmanager
def children(count: int, work: Callable[..., None], *arguments: object) -> Iterator[list[Child]]:
    with ExitStack() as stack:
        yield [stack.enter_context(child(work, *arguments)) for _ in range(count)]


def at_once(processes: list[Child], message: object) -> list[Any]:
    """What the processes answer to a message that they act on at the same moment."""
    start_s = time.time() + 0.02
    for process in processes:
        process.send((message, start_s))
    return [process.answer() for process in processes]


def messages(pipe: Connection) -> Iterator[Any]:
    """What :func:`at_once` sends, each at its moment."""
    while True:
        message, start_s = pipe.recv()
        while time.time() < start_s:
            pass
        yield message


# opening


def opens(pipe: Connection) -> None:
    for url in messages(pipe):
        try:
            Ledger(url, migrations=(*MIGRATIONS, add_note)).close()
            pipe.send(None)
        except LedgerError as error:
            pipe.send(str(error))


def test_two_processes_that_open_a_new_ledger_at_once_make_it_once(new_url):
    with children(2, opens) as processes:
        for _ in range(10):
            url = new_url()
            assert at_once(processes, url) == [None, None]
            assert version(url) == len(MIGRATIONS) + 1


def test_two_processes_that_open_an_earlier_ledger_at_once_bring_it_up_to_date_once(new_url):
    with children(2, opens) as processes:
        for _ in range(10):
            url = new_url()
            open_ledger(url)
            assert at_once(processes, url) == [None, None]
            assert version(url) == len(MIGRATIONS) + 1


def die(tx: sa.Connection) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def opens_and_dies(pipe: Connection, url: str) -> None:
    Ledger(url, migrations=(*MIGRATIONS, add_note, die))


@pytest.mark.parametrize("there", [True, False])
def test_a_process_killed_in_a_migration_leaves_the_ledger_as_it_was(url, there):
    if there:
        open_ledger(url)
    with child(opens_and_dies, url) as process, pytest.raises(EOFError):
        process.answer()
    with connection(url) as tx:
        assert sa.inspect(tx).has_table("events") == there
    open_ledger(url, (*MIGRATIONS, add_note))


# transforms


def creates(pipe: Connection, url: str) -> None:
    ledger = Ledger(url)
    for _ in messages(pipe):
        identity = new_transform(ledger)
        pipe.send((identity, {row.id for row in ledger.transforms()}))


def test_who_creates_a_transform_sees_every_older_one(url):
    """Else two that ask the same could both be taken for the oldest, and both be sent."""
    with children(2, creates, url) as processes:
        seen = dict(pair for _ in range(50) for pair in at_once(processes, None))
    with closing(Ledger(url)) as ledger:
        order = [row.id for row in reversed(ledger.transforms())]
    assert len(order) == len(seen) == 100
    for count, identity in enumerate(order):
        assert set(order[:count]) <= seen[identity]


# leases


def acquires(pipe: Connection, url: str) -> None:
    ledger = Ledger(url)
    for identity in messages(pipe):
        lease = ledger.acquire(identity)
        pipe.send(lease and lease.fence)


def test_of_two_processes_that_want_one_transform_exactly_one_gets_it(url):
    with closing(Ledger(url)) as ledger, children(2, acquires, url) as processes:
        for _ in range(20):
            got = at_once(processes, new_transform(ledger))
            assert sorted(fence or 0 for fence in got) == [0, 1]


def test_of_two_processes_that_take_over_from_a_dead_one_exactly_one_gets_it(url):
    with closing(Ledger(url)) as ledger, children(2, acquires, url) as processes:
        left = [new_transform(ledger) for _ in range(20)]
        with child(acquires, url) as holder:
            assert [at_once([holder], identity) for identity in left] == [[1]] * 20
        for identity in left:
            got = at_once(processes, identity)
            assert sorted(fence or 0 for fence in got) == [0, 2]


def test_of_two_processes_that_take_over_an_expired_lease_exactly_one_gets_it(url):
    with (
        closing(Ledger(url)) as ledger,
        closing(Ledger(url, lease_s=0.0)) as paused,
        children(2, acquires, url) as processes,
    ):
        for _ in range(20):
            identity = new_transform(ledger)
            held(paused, identity)
            got = at_once(processes, identity)
            assert sorted(fence or 0 for fence in got) == [0, 2]


# a holder that is stopped


def advances(pipe: Connection, url: str, identity: str) -> None:
    """Holds the transform, and when it is told to, tries every kind of write."""
    ledger = Ledger(url, lease_s=0.5)
    lease = held(ledger, identity)
    writes: list[Callable[[], None]] = [
        lambda: ledger.renew(lease),
        lambda: add(ledger, lease, "late"),
        lambda: ledger.move_batch(lease, "t1", "planned", "submitting"),
        lambda: ledger.move_transform(lease, "planning", "open"),
        lambda: ledger.note(lease, None, "late", {}),
    ]
    with ledger.keeping(lease):
        add(ledger, lease)
        pipe.send("held")
        pipe.recv()
        for write in writes:
            try:
                write()
                pipe.send("written")
            except LedgerError as error:
                pipe.send(type(error).__name__)
        ledger.release(lease)
        pipe.send("released")


def taken_over(ledger: Ledger, identity: str) -> Any:
    """The lease, once it can be had."""
    for _ in itertools.repeat(None, 600):
        lease = ledger.acquire(identity)
        if lease is not None:
            return lease
        time.sleep(0.05)
    raise AssertionError("the lease of a stopped process does not end")


def test_a_holder_stopped_past_its_lease_writes_nothing_when_it_goes_on(url):
    with closing(Ledger(url)) as ledger:
        identity = new_transform(ledger)
        with child(advances, url, identity) as holder:
            assert holder.answer() == "held"
            os.kill(holder.pid, signal.SIGSTOP)
            holder.stopped()
            lease = taken_over(ledger, identity)
            ledger.note(lease, None, "taken over", {})
            before = ledger.transform(identity), ledger.batches(), ledger.events(identity)
            os.kill(holder.pid, signal.SIGCONT)
            holder.send("go on")
            assert [holder.answer() for _ in range(6)] == [*["LeaseLost"] * 5, "released"]
        assert (ledger.transform(identity), ledger.batches(), ledger.events(identity)) == before
        ledger.renew(lease)


def stops_in_a_transaction(pipe: Connection, url: str, identity: str) -> None:
    ledger = Ledger(url, lease_s=0.5)
    lease = held(ledger, identity)
    pipe.send("held")
    try:
        with ledger._held(lease) as (tx, _):
            tx.execute(sa.text("UPDATE transforms SET status = 'late'"))
            os.kill(os.getpid(), signal.SIGSTOP)
        pipe.send("written")
    except LedgerError as error:
        pipe.send(str(error))
    try:
        ledger.renew(lease)
    except LedgerError as error:
        pipe.send(type(error).__name__)


def test_a_holder_stopped_within_a_transaction_holds_nobody_up_on_postgresql(postgres):
    """Its machine may be gone for ever, and the row that it has locked must be free again."""
    url = postgres.new_database()
    postgres.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET lock_timeout = '60s'")
    with closing(Ledger(url)) as ledger:
        identity = new_transform(ledger)
        with child(stops_in_a_transaction, url, identity) as holder:
            assert holder.answer() == "held"
            holder.stopped()
            lease = taken_over(ledger, identity)
            os.kill(holder.pid, signal.SIGCONT)
            assert "could not be used" in holder.answer()
            assert holder.answer() == "LeaseLost"
        assert ledger.transform(identity).status == "planning"
        ledger.renew(lease)


def test_a_holder_stopped_within_a_transaction_keeps_its_lease_on_sqlite(tmp_path):
    """Nobody can take it over before the transaction's end, so what it writes is in order."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    with closing(Ledger(url)) as ledger:
        identity = new_transform(ledger)
        with child(stops_in_a_transaction, url, identity) as holder:
            assert holder.answer() == "held"
            holder.stopped()
            with (
                closing(sqlite3.connect(tmp_path / "ledger.db", timeout=0.5)) as other,
                pytest.raises(sqlite3.OperationalError, match="locked"),
            ):
                other.execute("UPDATE transforms SET fence = fence + 1")
            os.kill(holder.pid, signal.SIGCONT)
            assert holder.answer() == "written"
        assert ledger.transform(identity).status == "late"
