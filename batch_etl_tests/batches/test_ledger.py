"""The ledger: conditional moves, fenced leases, and what two real connections see of each other."""

from __future__ import annotations

import datetime as dt
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from batch_etl.batches.errors import LeaseLost, LedgerError
from batch_etl.batches.ledger import SCHEMA_VERSION, Lease, Ledger


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ledger.db'}"


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    own = Ledger(url)
    yield own
    own.close()


@pytest.fixture
def other(url: str, ledger: Ledger) -> Iterator[Ledger]:
    """The same ledger as another process has it: its own connections and its own name."""
    own = Ledger(url)
    yield own
    own.close()


def new_transform(ledger: Ledger, **changes: object) -> str:
    values: dict = {
        "pipeline": "p",
        "endpoint": "emulator",
        "scope": [None],
        "fingerprint": "f",
        "records_digest": "d",
        "task": {"prompt": "x"},
    }
    return ledger.create_transform(**{**values, **changes})


def held(ledger: Ledger, transform_id: str) -> Lease:
    lease = ledger.acquire(transform_id)
    assert lease is not None
    return lease


def add(ledger: Ledger, lease: Lease, token: str = "t1", endpoint: str = "emulator") -> None:
    ledger.add_batch(
        lease,
        token=token,
        endpoint=endpoint,
        attempt=1,
        requests=3,
        payload_bytes=99,
        claude_model="claude-haiku-4-5",
    )


# rows


def test_a_transform_is_read_back_as_it_was_written(ledger):
    identity = new_transform(ledger, scope=["2026-01-01", "ü/"], task={"a": [1, None]})
    row = ledger.transform(identity)
    assert (row.scope, row.task, row.status) == (
        ("2026-01-01", "ü/"),
        {"a": [1, None]},
        "planning",
    )
    assert row.created_at.tzinfo is dt.UTC
    assert abs((dt.datetime.now(dt.UTC) - row.created_at).total_seconds()) < 60


def test_a_transform_that_is_not_there_is_named(ledger):
    with pytest.raises(LedgerError, match="has no transform 'nobody'"):
        ledger.transform("nobody")


def test_transforms_are_found_by_pipeline_endpoint_and_status_newest_first(ledger):
    first = new_transform(ledger)
    second = new_transform(ledger)
    new_transform(ledger, pipeline="q")
    new_transform(ledger, endpoint="anthropic")
    wanted = {"pipeline": "p", "endpoint": "emulator"}
    assert [row.id for row in ledger.transforms(**wanted)] == [second, first]
    assert [row.id for row in ledger.transforms(**wanted, limit=1)] == [second]
    lease = held(ledger, first)
    ledger.move_transform(lease, "planning", "open", counts={"records": 5})
    assert [row.id for row in ledger.transforms(**wanted, statuses=["planning"])] == [second]
    assert ledger.transform(first).counts == {"records": 5}


def test_a_batch_goes_its_way_and_each_step_is_an_event(ledger):
    identity = new_transform(ledger)
    lease = held(ledger, identity)
    add(ledger, lease)
    now = dt.datetime(2026, 11, 23, 1, 2, 3, 456, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    ledger.move_batch(lease, "t1", "planned", "submitting", submitting_at=now)
    ledger.move_batch(lease, "t1", "submitting", "submitted", {"batch_id": "m1"}, batch_id="m1")
    ledger.move_batch(lease, "t1", "submitted", "collected", outcomes={"Succeeded": 3})
    (row,) = ledger.batches(transform_id=identity)
    assert (row.status, row.batch_id, row.outcomes) == ("collected", "m1", {"Succeeded": 3})
    assert row.submitting_at == now
    assert row.submitting_at.tzinfo is dt.UTC  # type: ignore[union-attr]
    events = ledger.events(identity)
    assert [(batch, event) for _, batch, event, _ in events] == [
        (None, "transform created"),
        ("t1", "batch planned"),
        ("t1", "batch submitting"),
        ("t1", "batch submitted"),
        ("t1", "batch collected"),
    ]
    assert events[3][3] == {"batch_id": "m1"}


def test_a_batch_moves_only_from_the_status_it_is_in(ledger):
    lease = held(ledger, new_transform(ledger))
    add(ledger, lease)
    ledger.move_batch(lease, "t1", "planned", "submitting")
    with pytest.raises(LedgerError, match="batch t1 is no longer planned"):
        ledger.move_batch(lease, "t1", "planned", "submitting")
    with pytest.raises(LedgerError, match="planned cannot become collected"):
        ledger.move_batch(lease, "t1", "planned", "collected")
    assert ledger.batches()[0].status == "submitting"


def test_a_refused_move_writes_no_event(ledger):
    identity = new_transform(ledger)
    lease = held(ledger, identity)
    before = ledger.events(identity)
    with pytest.raises(LedgerError, match="is no longer open"):
        ledger.move_transform(lease, "open", "done")
    assert ledger.events(identity) == before


def test_of_two_movers_of_one_batch_only_one_wins(ledger):
    """Both hold the lease (they are threads of one process); the UPDATE decides."""
    lease = held(ledger, new_transform(ledger))
    won, lost = [], []
    for number in range(8):
        add(ledger, lease, token=f"t{number}")
    barrier = threading.Barrier(2)

    def move() -> None:
        for number in range(8):
            barrier.wait()
            try:
                ledger.move_batch(lease, f"t{number}", "planned", "submitting")
                won.append(number)
            except LedgerError:
                lost.append(number)

    threads = [threading.Thread(target=move) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == sorted(lost) == list(range(8))


def test_the_vendors_batch_ids_are_known_once_and_unique(ledger):
    lease = held(ledger, new_transform(ledger))
    for token in ("t1", "t2"):
        add(ledger, lease, token)
        ledger.move_batch(lease, token, "planned", "submitting")
    ledger.move_batch(lease, "t1", "submitting", "submitted", batch_id="m1")
    assert ledger.knows(["m1", "m2"]) == {"m1"}
    assert ledger.knows([]) == set()
    with pytest.raises(Exception, match="UNIQUE"):
        ledger.move_batch(lease, "t2", "submitting", "submitted", batch_id="m1")
    assert [row.status for row in ledger.batches()] == ["submitted", "submitting"]


# leases


def test_a_lease_is_one_processs_until_it_gives_it_back(ledger, other):
    identity = new_transform(ledger)
    lease = held(ledger, identity)
    assert other.acquire(identity) is None
    ledger.release(lease)
    assert other.acquire(identity) is not None
    assert ledger.acquire(identity) is None


def test_a_lease_can_be_taken_again_by_its_holder(ledger):
    identity = new_transform(ledger)
    assert held(ledger, identity) == held(ledger, identity)


def test_a_lease_of_a_transform_that_is_not_there_cannot_be_taken(ledger):
    assert ledger.acquire("nobody") is None


def test_an_expired_lease_is_taken_over_and_its_old_holder_can_write_nothing(url):
    with ExitStack() as stack:
        paused, other = Ledger(url, lease_s=0.05), Ledger(url)
        stack.callback(paused.close)
        stack.callback(other.close)
        identity = new_transform(paused)
        old = held(paused, identity)
        add(paused, old)
        time.sleep(0.1)
        new = held(other, identity)
        assert new.fence > old.fence
        for write in (
            lambda: paused.renew(old),
            lambda: add(paused, old, "t2"),
            lambda: paused.move_batch(old, "t1", "planned", "submitting"),
            lambda: paused.move_transform(old, "planning", "open"),
            lambda: paused.note(old, None, "note", {}),
        ):
            with pytest.raises(LeaseLost, match=identity):
                write()
        paused.release(old)  # gives nothing back that it does not hold
        other.move_batch(new, "t1", "planned", "submitting")
        assert [row.id for row in other.batches()] == ["t1"]


def test_a_lease_that_was_let_go_is_too_old_for_the_same_process_too(ledger, other):
    identity = new_transform(ledger)
    old = held(ledger, identity)
    ledger.release(old)
    taken = held(other, identity)
    other.release(taken)
    assert held(ledger, identity).fence > taken.fence > old.fence
    with pytest.raises(LeaseLost):
        ledger.renew(old)


def test_every_write_renews_the_lease(url):
    with ExitStack() as stack:
        ledger, other = Ledger(url, lease_s=1.0), Ledger(url)
        stack.callback(ledger.close)
        stack.callback(other.close)
        identity = new_transform(ledger)
        lease = held(ledger, identity)
        ends = []
        for number in range(3):
            add(ledger, lease, f"t{number}")
            ends.append(_lease_end(url))
        assert ends == sorted(set(ends))
        assert other.acquire(identity) is None


def test_a_lease_is_kept_through_a_long_call(url):
    """A create may upload for minutes; nobody may take the transform over meanwhile."""
    with ExitStack() as stack:
        ledger, other = Ledger(url, lease_s=0.2), Ledger(url)
        stack.callback(ledger.close)
        stack.callback(other.close)
        identity = new_transform(ledger)
        lease = held(ledger, identity)
        with ledger.keeping(lease):
            for _ in range(6):
                time.sleep(0.1)
                assert other.acquire(identity) is None
        ledger.renew(lease)
        assert "lease" not in {thread.name for thread in threading.enumerate()}


def _lease_end(url: str) -> str:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        ((end,),) = connection.execute("SELECT lease_expires_at FROM transforms").fetchall()
    connection.close()
    return end


TAKE = """
import sys
from batch_etl.batches.ledger import Ledger
ledger = Ledger(sys.argv[1])
for line in sys.stdin:
    print(ledger.acquire(line.strip()) is not None, flush=True)
"""


def test_a_second_process_gets_the_lease_only_after_the_first_lets_it_go(url, ledger):
    identity = new_transform(ledger)
    lease = held(ledger, identity)
    with subprocess.Popen(
        [sys.executable, "-c", TAKE, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout

        def asked() -> str:
            print(identity, file=process.stdin, flush=True)
            return process.stdout.readline().strip()  # type: ignore[union-attr]

        assert asked() == "False"
        ledger.release(lease)
        assert asked() == "True"
        assert ledger.acquire(identity) is None
        process.stdin.close()
    assert process.returncode == 0


OPEN = """
import sys
from batch_etl.batches.ledger import Ledger
sys.stdin.readline()
ledger = Ledger(sys.argv[1])
ledger.create_transform(pipeline="p", endpoint="e", scope=[None], fingerprint="f",
                        records_digest="d", task={})
"""


def test_a_new_ledger_may_be_opened_by_several_processes_at_once(url):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", OPEN, url], stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdin
        process.stdin.write(b"go\n")
        process.stdin.flush()
    errors = [process.communicate()[1].decode() for process in processes]
    assert errors == [""] * 3
    ledger = Ledger(url)
    assert len(ledger.transforms()) == 3
    ledger.close()


# opening


def test_a_ledger_of_a_newer_program_is_refused(url, ledger):
    ledger.close()
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.execute("UPDATE schema_version SET version = ?", [SCHEMA_VERSION + 1])
    connection.close()
    with pytest.raises(LedgerError, match=f"schema version {SCHEMA_VERSION + 1}.*upgrade"):
        Ledger(url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:////no/such/folder/ledger.db", ["/no/such/folder/ledger.db", "unable to open"]),
        (
            "postgresql+psycopg2://bob:hunter2@127.0.0.1:1/db",
            ["127.0.0.1:1/db", "cannot be opened"],
        ),
        ("postgresql+nodriver://bob:hunter2@127.0.0.1:1/db", ["127.0.0.1", "nodriver"]),
        ("mysql+pymysql://bob:hunter2@127.0.0.1/db", ["127.0.0.1/db", "pymysql"]),
        ("postgresql://bob:hunter2@host:hunter2/db", ["cannot be read", "percent-encoded"]),
        ("bob:hunter2", ["cannot be read"]),
        ("", ["cannot be read"]),
    ],
)
def test_a_ledger_that_cannot_be_opened_says_where_and_never_the_password(url, words):
    with pytest.raises(LedgerError) as error:
        Ledger(url)
    for word in words:
        assert word in str(error.value)
    chain = re.sub(r"\s+", " ", repr(error.value) + repr(error.value.__cause__))
    assert "hunter2" not in chain
    assert error.value.__suppress_context__ or error.value.__context__ is None


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "ledger.db"
    path.write_text("not a database, but long enough to be looked at\n" * 50)
    with pytest.raises(LedgerError, match="not a database"):
        Ledger(f"sqlite:///{path}")
