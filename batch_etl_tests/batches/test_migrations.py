"""A ledger of every earlier version becomes what a new one is, whole or not at all."""

from __future__ import annotations

import datetime as dt
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from batch_etl.batches import alerts, tables
from batch_etl.batches.alerts import Alert
from batch_etl.batches.errors import LedgerError
from batch_etl.batches.ledger import Ledger
from batch_etl.batches.migrations import MIGRATIONS, Migration

DUMPS = Path(__file__).parent / "ledgers"
"""``version_<n>.<database>.sql``: what the program that brought version n wrote, dumped."""


def open_ledger(url: str, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    Ledger(url, migrations=migrations).close()


@contextmanager
def connection(url: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(url)
    with engine.begin() as tx:
        yield tx
    engine.dispose()


def load(url: str, version: int) -> None:
    """Make the ledger at ``url`` what was dumped."""
    database = url.partition(":")[0].partition("+")[0]
    dump = (DUMPS / f"version_{version}.{database}.sql").read_text("utf-8")
    if database == "sqlite":
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as file:
            file.executescript(dump)
        return
    with connection(url) as tx:
        for statement in dump.split(";\n"):
            if statement.strip():
                tx.exec_driver_sql(statement)


def version(url: str) -> int:
    with connection(url) as tx:
        return tx.execute(sa.text("SELECT version FROM schema_version")).scalar_one()


def schema(url: str) -> dict[str, Any]:
    """Tables, columns, keys and indexes, as the database tells them."""
    with connection(url) as tx:
        looked = sa.inspect(tx)
        return {
            name: {
                "columns": {
                    column["name"]: (str(column["type"]), column["nullable"], column["default"])
                    for column in looked.get_columns(name)
                },
                "key": looked.get_pk_constraint(name)["constrained_columns"],
                "foreign": [
                    (key["constrained_columns"], key["referred_table"])
                    for key in looked.get_foreign_keys(name)
                ],
                "unique": [one["column_names"] for one in looked.get_unique_constraints(name)],
                "indexes": sorted(
                    (str(index["name"]), index["column_names"], bool(index["unique"]))
                    for index in looked.get_indexes(name)
                ),
            }
            for name in looked.get_table_names()
        }


def add_note(tx: sa.Connection) -> None:
    """A migration that none of the released ones is."""
    tx.execute(sa.text("ALTER TABLE events ADD COLUMN note TEXT"))
    tx.execute(sa.text("UPDATE events SET note = 'old'"))


def fail(tx: sa.Connection) -> None:
    raise ZeroDivisionError


def test_the_migrations_leave_behind_the_tables_that_the_program_uses(url):
    open_ledger(url)
    made = schema(url)
    assert made.pop("schema_version")["columns"].keys() == {"version"}
    with connection(url) as tx:
        for name in (
            "schema_version",
            *(table.name for table in reversed(tables.META.sorted_tables)),
        ):
            tx.execute(sa.text(f"DROP TABLE {name}"))
        tables.META.create_all(tx)
    assert schema(url) == made


@pytest.mark.parametrize("earlier", range(1, len(MIGRATIONS) + 1))
def test_a_ledger_of_each_version_becomes_what_a_new_one_is(new_url, earlier):
    url, fresh = new_url(), new_url()
    load(url, earlier)
    open_ledger(url)
    open_ledger(fresh)
    assert schema(url) == schema(fresh)
    assert version(url) == version(fresh) == len(MIGRATIONS)


@pytest.mark.parametrize("earlier", range(1, len(MIGRATIONS) + 1))
def test_what_a_ledger_of_each_version_holds_is_still_there(url, earlier):
    load(url, earlier)
    with closing(Ledger(url)) as ledger:
        found = [(row.pipeline, row.scope, row.status) for row in ledger.transforms()]
        assert found == [
            ("posts", (None,), "planning"),
            ("reviews", ("2026-11-01", "2026-11-02/ü"), "planning"),
            ("reviews", (None,), "done"),
        ]
        done = ledger.transforms(statuses=["done"])[0]
        assert done.counts == {"records": 7, "sent": 3, "Succeeded": 2, "Invalid": 1}
        assert done.task == {"prompt": "Classify: 'ü' {{ text }}", "max_tokens": 100}
        first, dropped, waiting = ledger.batches()
        assert (dropped.status, waiting.status) == ("dropped", "submitting")
        assert (first.batch_id, first.outcomes) == ("msgbatch_1", {"Succeeded": 2, "Invalid": 1})
        assert (first.payload_bytes, first.cost_pico_usd) == (2**33 + 3, 2**40)
        assert first.submitting_at == dt.datetime(2026, 11, 23, 1, 2, 3, 456789, tzinfo=dt.UTC)
        assert len(ledger.events(done.id)) == 9


@pytest.mark.parametrize("earlier", range(1, len(MIGRATIONS) + 1))
def test_a_transform_of_each_version_can_be_gone_on_with(url, earlier):
    """Its holder was another machine's process, whose lease has ended by now."""
    load(url, earlier)
    with connection(url) as tx:
        tx.execute(sa.text("UPDATE transforms SET lease_expires_at = '2000-01-01 00:00:00.000000'"))
    with closing(Ledger(url)) as ledger:
        open_one = ledger.batches(statuses=["submitting"])[0]
        lease = ledger.acquire(open_one.transform_id)
        assert lease is not None
        assert lease.fence == 2
        ledger.move_batch(lease, open_one.id, "submitting", "submitted", batch_id="msgbatch_2")
        assert ledger.knows(["msgbatch_1", "msgbatch_2"]) == {"msgbatch_1", "msgbatch_2"}
        assert ledger.events(open_one.transform_id)[-1][2] == "batch submitted"


@pytest.mark.parametrize("earlier", range(3, len(MIGRATIONS) + 1))
def test_what_was_told_by_a_ledger_of_each_version_is_not_told_again(url, earlier):
    load(url, earlier)
    told = Alert("failed_run:r1", "failed_run", "failure", "again", "again")
    with closing(Ledger(url)) as ledger:
        assert alerts.note(ledger, [told], ["d1", "d2"]) == 0
        assert alerts.claim(ledger, "d1", 10) == []
        (waiting,) = alerts.claim(ledger, "d2", 10)
        assert waiting.message == "Run r1 failed.\nNext: ü"
        ((place, left),) = alerts.abandoned(ledger, ["d1", "d2"])
        assert (place, left.event) == ("d1", "completion:t1")


def test_there_is_a_dump_of_each_version():
    found = {path.name for path in DUMPS.iterdir()}
    numbers = range(1, len(MIGRATIONS) + 1)
    assert found == {
        f"version_{n}.{kind}.sql" for n in numbers for kind in ("sqlite", "postgresql")
    }


def test_a_migration_is_applied_to_what_is_there_and_only_once(url):
    load(url, 1)
    for _ in range(2):
        open_ledger(url, (*MIGRATIONS[:1], add_note))
    assert version(url) == 2
    with connection(url) as tx:
        notes = tx.execute(sa.text("SELECT note FROM events")).scalars().all()
    assert notes == ["old"] * 13


def test_several_migrations_are_applied_in_their_order(url):
    applied: list[int] = []
    steps = [lambda tx, n=n: applied.append(n) for n in (1, 2, 3)]
    open_ledger(url)
    open_ledger(url, [*MIGRATIONS, *steps])
    assert applied == [1, 2, 3]
    assert version(url) == len(MIGRATIONS) + 3


def test_of_several_migrations_either_all_are_applied_or_none(url):
    load(url, 1)
    before = schema(url)
    with pytest.raises(ZeroDivisionError):
        open_ledger(url, (*MIGRATIONS[:1], add_note, fail))
    assert schema(url) == before
    assert version(url) == 1
    open_ledger(url, (*MIGRATIONS[:1], add_note))
    assert version(url) == 2


def test_a_new_ledger_whose_making_fails_is_none(url):
    with pytest.raises(ZeroDivisionError):
        open_ledger(url, (*MIGRATIONS, fail))
    assert schema(url) == {}
    open_ledger(url)


def test_a_ledger_of_a_newer_program_is_refused_and_left_as_it_is(url):
    newer = len(MIGRATIONS) + 1
    open_ledger(url, (*MIGRATIONS, add_note))
    before = schema(url)
    with pytest.raises(LedgerError, match=f"schema version {newer}.*knows {newer - 1}; upgrade"):
        open_ledger(url)
    assert schema(url) == before


def test_a_refusal_does_not_tell_the_password(postgres):
    url = postgres.new_database()
    open_ledger(url, (*MIGRATIONS, add_note))
    with pytest.raises(LedgerError, match=r"batch_etl:\*\*\*@127\.0\.0\.1") as error:
        open_ledger(url)
    assert postgres.password not in str(error.value)


def test_a_table_of_another_programs_is_not_taken_for_ours(url):
    with connection(url) as tx:
        tx.execute(sa.text("CREATE TABLE events (theirs TEXT)"))
    with pytest.raises(LedgerError, match=r"cannot be opened: .*events.* already exists"):
        open_ledger(url)
    assert list(schema(url)) == ["events"]


def test_the_schema_is_made_where_the_url_says(postgres):
    """One database, a schema for each ledger: the way to share a server's only database."""
    url = postgres.new_database()
    with connection(url) as tx:
        tx.execute(sa.text("CREATE SCHEMA ours"))
    ours = f"{url}?options=-csearch_path%3Dours"
    open_ledger(url)
    open_ledger(ours)
    with closing(Ledger(ours)) as ledger:
        identity = ledger.create_transform(
            pipeline="p", endpoint="e", scope=[None], fingerprint="f", records_digest="d", task={}
        )
    with closing(Ledger(url)) as other:
        assert other.transforms() == []
    with closing(Ledger(ours)) as ledger:
        assert re.fullmatch(r"\d{8}T\d{6}-[0-9a-f]{8}", identity)
        assert [row.id for row in ledger.transforms()] == [identity]
