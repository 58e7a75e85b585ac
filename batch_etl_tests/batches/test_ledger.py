"""The ledger: conditional moves, fenced leases, and what two real connections see of each other.

Every test with ``url`` runs on SQLite and on PostgreSQL. What several processes do to one ledger
at once is in test_ledger_processes.py.
"""

from __future__ import annotations

import datetime as dt
import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import sqlalchemy as sa

from batch_etl.batches.errors import LeaseLost, LedgerError
from batch_etl.batches.ledger import Lease, Ledger, utc_now


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
    with pytest.raises(LedgerError, match=r"(?i)could not be used: .*unique"):
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


def _lease_end(url: str) -> object:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        end = connection.execute(sa.text("SELECT lease_expires_at FROM transforms")).scalar_one()
    engine.dispose()
    return end


# the clock


def test_a_transform_is_newer_than_all_before_it_even_if_the_clock_is_put_back(url):
    """Else the newer of two would be taken for the older, and both be sent."""
    with ExitStack() as stack:
        ahead = Ledger(url, clock=lambda: utc_now() + dt.timedelta(hours=1))
        ledger = Ledger(url)
        stack.callback(ahead.close)
        stack.callback(ledger.close)
        created = [new_transform(each) for each in (ledger, ahead, ledger, ahead, ledger)]
        rows = ledger.transforms()
        assert [row.id for row in rows] == created[::-1]
        assert len({row.created_at for row in rows}) == 5


def test_a_machine_whose_clock_is_ahead_does_not_take_a_lease_over(postgres):
    with ExitStack() as stack:
        url = postgres.new_database()
        ledger = Ledger(url)
        ahead = Ledger(url, clock=lambda: utc_now() + dt.timedelta(hours=1))
        behind = Ledger(url, clock=lambda: utc_now() - dt.timedelta(hours=1))
        for each in (ledger, ahead, behind):
            stack.callback(each.close)
        identity = new_transform(ledger)
        lease = held(ledger, identity)
        assert ahead.acquire(identity) is None
        ledger.release(lease)
        held(behind, identity)
        assert ledger.acquire(identity) is None


def test_times_are_utc_whatever_the_databases_time_zone(url, ledger):
    """The tests' PostgreSQL keeps the time of Tokyo."""
    identity = new_transform(ledger)
    lease = held(ledger, identity)
    add(ledger, lease)
    row = ledger.batches()[0]
    assert row.planned_at.tzinfo is dt.UTC
    assert abs((utc_now() - row.planned_at).total_seconds()) < 60
    assert [at.tzinfo for at, *_ in ledger.events(identity)] == [dt.UTC] * 2


# opening


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:////no/such/folder/ledger.db", ["/no/such/folder/ledger.db", "unable to open"]),
        (
            "postgresql+psycopg2://bob:hunter2@127.0.0.1:1/db",
            ["127.0.0.1:1/db", "cannot be opened"],
        ),
        ("postgresql+nodriver://bob:hunter2@127.0.0.1:1/db", ["127.0.0.1", "nodriver"]),
        ("mysql+pymysql://bob:hunter2@127.0.0.1/db", ["127.0.0.1/db", "SQLite or PostgreSQL"]),
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


def test_a_database_that_goes_away_is_a_ledger_error_without_the_password(postgres):
    url = postgres.new_database()
    ledger = Ledger(url)
    identity = new_transform(ledger)
    name = url.rpartition("/")[2]
    postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    end = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = "
    postgres.execute(f"{end}'{name}'")
    with pytest.raises(LedgerError, match=f"{name} could not be used") as error:
        ledger.transform(identity)
    assert postgres.password not in str(error.value)
    postgres.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert ledger.transform(identity).status == "planning"
    ledger.close()
