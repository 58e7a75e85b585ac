"""The sensor ``alerts``: each event reaches a sink on this machine once, and no secret is told."""

from __future__ import annotations

import datetime as dt
import logging
import multiprocessing
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from batch_etl.batches.alerts import Alert, note
from batch_etl.batches.ledger import Ledger
from batch_etl.components.alert_sensor import Cursor, deliver
from batch_etl.components.alert_urls import places, send, service
from batch_etl.components.alerts import Alerts
from batch_etl_tests.components.make import DAILY, Project, edited, holding
from batch_etl_tests.components.sink import Sink, sink
from batch_etl_tests.emulator.driver import Driver

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__])

MONITORING = "type: batch_etl.components.Monitoring\nattributes:\n  alerts: {completion: all}\n"
SECRET = "T0KEN-MARKED"
ALERT = Alert("failed_run:1", "failed_run", "failure", "it failed", "Next: nothing.")


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
    with sink() as listening:
        monkeypatch.setenv("BATCH_ETL_ALERT_URLS", f"{listening.url}{SECRET}")
        yield listening


@pytest.fixture
def watched(mine: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The daily pipeline ``mine``, with monitoring that tells of completion too."""
    monkeypatch.setenv("BATCH_ETL_ENDPOINT", "emulator")
    mine.home.mkdir()
    mine.write(DAILY)
    monitor(mine, MONITORING)
    return mine


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """In memory: quick."""
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def stored(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """In files, as a daemon's."""
    with dg.instance_for_test(temp_dir=str(tmp_path)) as made:
        yield made


def monitor(project: Project, text: str) -> None:
    folder = project.folder / "monitoring"
    folder.mkdir(exist_ok=True)
    (folder / "defs.yaml").write_text(text)


class Ticking:
    """The sensor of a project, ticked as its daemon would, with the cursor kept."""

    def __init__(self, project: Project, instance: dg.DagsterInstance) -> None:
        definitions = project.load()
        self._repository = definitions.get_repository_def()
        self._resources = dict(definitions.resources or {})
        self._instance = instance
        self.sensor = self._repository.get_sensor_def("alerts")
        self._cursor: str | None = None

    def __call__(self) -> str:
        context = dg.build_sensor_context(
            instance=self._instance,
            repository_def=self._repository,
            resources=self._resources,
            cursor=self._cursor,
        )
        found = self.sensor.evaluate_tick(context)
        self._cursor = found.cursor
        assert not found.run_requests
        return found.skip_message or ""


def transform(home: Path, status: str = "done", **outcomes: int) -> None:
    """One of ``mine`` with a batch of as many requests as it has records."""
    records = sum(outcomes.values())
    with closing(Ledger(f"sqlite:///{home / 'ledger.db'}")) as ledger:
        identity = ledger.create_transform(
            pipeline="mine",
            endpoint="emulator",
            scope=["2026-11-01"],
            fingerprint="f",
            records_digest="d",
            task={},
        )
        lease = ledger.acquire(identity)
        assert lease is not None
        ledger.add_batch(
            lease,
            token="token",
            endpoint="emulator",
            attempt=1,
            requests=records,
            payload_bytes=100,
            claude_model="claude-haiku-4-5",
        )
        ledger.move_batch(lease, "token", "planned", "submitting")
        now = ledger.transform(identity).created_at
        ledger.move_batch(lease, "token", "submitting", "submitted", submitted_at=now)
        ledger.move_transform(lease, "planning", "open", counts={"records": records})
        if status == "done":
            ledger.move_batch(
                lease, "token", "submitted", "collected", cost_pico_usd=15 * 10**9, ended_at=now
            )
            ledger.move_transform(lease, "open", "done", counts={"records": records, **outcomes})
        ledger.release(lease)


def failed(
    project: Project, instance: dg.DagsterInstance, tags: dict[str, str] | None = None
) -> None:
    """A run of ``mine`` that failed before any step."""
    instance.create_run_for_job(
        job_def=project.load().resolve_implicit_global_asset_job_def(),
        tags=tags,
        asset_selection=frozenset({dg.AssetKey(["mine", "results"])}),
        status=dg.DagsterRunStatus.FAILURE,
    )


def change(home: Path, statement: str) -> None:
    with closing(sqlite3.connect(home / "ledger.db")) as ledger, ledger:
        ledger.execute(statement)


def later(home: Path) -> None:
    """What was refused is due now."""
    change(home, "UPDATE alerts SET due_at = '2000-01-01 00:00:00.000000'")


# once ---------------------------------------------------------------------------------------------


def test_a_finished_run_is_told_of_once_however_often_the_sensor_looks(
    watched: Project, emulator: Driver, instance: dg.DagsterInstance, place: Sink
) -> None:
    assert watched.run(first="2026-11-01", last="2026-11-03", instance=instance).success
    calls = emulator.status()["http_calls"]
    tick = Ticking(watched, instance)
    assert tick() == "1 new, 1 sent"
    assert [tick() for _ in range(3)] == ["0 new, 0 sent"] * 3
    assert Ticking(watched, instance)() == "0 new, 0 sent", "a daemon that begins anew"
    assert emulator.status()["http_calls"] == calls, "the API is not asked"
    (message,) = place.received
    assert message["title"] == "batch_etl: mine is done"
    assert "5 records: 5 answered, 0 in review; 1 batch(es), $0.00" in message["message"]
    assert "(emulated: would have cost)" in message["message"]
    assert "3 partitions (2026-11-01 to 2026-11-03)" in message["message"]
    assert message["type"] == "info"


def test_a_run_that_failed_is_told_of_once_without_its_errors_words(
    watched: Project, emulator: Driver, stored: dg.DagsterInstance, place: Sink
) -> None:
    emulator.faults({"kind": "error", "route": "create", "status": 403, "times": 1})
    run = watched.run(first="2026-11-02", instance=stored)
    assert not run.success
    tick = Ticking(watched, stored)
    assert tick() == "1 new, 1 sent"
    assert tick() == "0 new, 0 sent"
    (message,) = place.received
    assert message["title"] == "batch_etl: run of mine failed"
    assert message["type"] == "failure"
    text = message["message"]
    assert run.result.run_id in text
    assert "(mine__results: PermissionDenied)" in text
    assert "partition 2026-11-02" in text
    assert run.error not in text


def test_a_run_that_dagster_tries_again_is_not_told_of(
    watched: Project, instance: dg.DagsterInstance, place: Sink
) -> None:
    failed(watched, instance, {"dagster/will_retry": "true"})
    assert Ticking(watched, instance)() == "0 new, 0 sent"
    failed(watched, instance, {"dagster/will_retry": "false"})
    assert Ticking(watched, instance)() == "1 new, 1 sent"


def test_a_deferred_run_that_is_asked_for_again_and_again_is_told_of_once_a_day(
    watched: Project, instance: dg.DagsterInstance, place: Sink
) -> None:
    tags = {"batch_etl/transform": "t", "dagster/sensor_name": "deferred_results"}
    for _ in range(3):
        failed(watched, instance, tags)
    assert Ticking(watched, instance)() == "1 new, 1 sent"


def test_runs_of_other_assets_are_no_matter_of_ours(
    watched: Project, instance: dg.DagsterInstance, place: Sink
) -> None:
    @dg.asset
    def theirs() -> None:
        raise ZeroDivisionError

    assert not dg.materialize([theirs], instance=instance, raise_on_error=False).success
    assert Ticking(watched, instance)() == "0 new, 0 sent"


def test_batches_that_hang_and_results_that_vanish_are_told_of(
    watched: Project, instance: dg.DagsterInstance, place: Sink
) -> None:
    transform(watched.home, "open", Succeeded=3)
    tick = Ticking(watched, instance)
    assert tick() == "0 new, 0 sent"
    expected = {0.6: "a batch is stuck", 0.9: "a batch is about to expire", 25: "results are about"}
    for number, (days, words) in enumerate(expected.items()):
        moved = dt.datetime.now(dt.UTC) - dt.timedelta(days=days)
        ends = moved + dt.timedelta(days=1)
        change(
            watched.home,
            f"UPDATE batches SET submitted_at = '{moved:%Y-%m-%d %H:%M:%S.%f}', "
            f"expires_at = '{ends:%Y-%m-%d %H:%M:%S.%f}'",
        )
        assert tick() == "1 new, 1 sent"
        assert tick() == "0 new, 0 sent"
        assert words in place.titles[number]


def test_a_budget_near_its_end_and_many_records_in_review_are_one_message(
    watched: Project, instance: dg.DagsterInstance, place: Sink
) -> None:
    watched.write(edited(DAILY, ("  source:\n", "  budget: {day_usd: 0.018}\n  source:\n")))
    monitor(watched, edited(MONITORING, ("completion: all", "stuck_hours: 1")))
    transform(watched.home, Expired=12)
    tick = Ticking(watched, instance)
    assert tick() == "2 new, 2 sent"
    (message,) = place.received
    title = "batch_etl: 2 alerts, first mine: 100.0% of the records have no answer"
    assert message["title"] == title
    assert "WARNING pipeline mine: 83% of budget.day_usd is committed" in message["message"]
    assert "$0.015 (emulated: would have cost) are spent" in message["message"]
    assert "12 Expired" in message["message"]
    assert tick() == "0 new, 0 sent"


# trouble ------------------------------------------------------------------------------------------


def test_a_sink_that_was_down_gets_its_alerts_once_when_it_is_up(
    watched: Project,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with sink() as first:
        port = first.port
    monkeypatch.setenv("BATCH_ETL_ALERT_URLS", f"json://127.0.0.1:{port}/")
    transform(watched.home, Succeeded=5)
    tick = Ticking(watched, instance)
    told = tick()
    assert told.startswith("1 new, 0 sent; 1 alert(s) to URL 1 of BATCH_ETL_ALERT_URLS (JSON)")
    assert "sent again later" in told
    assert tick() == "0 new, 0 sent", "not before its pause is over"
    with sink(port) as up:
        later(watched.home)
        assert tick() == "0 new, 1 sent"
        later(watched.home)
        assert tick() == "0 new, 0 sent"
        assert up.titles == ["batch_etl: mine is done"]


def test_one_sink_that_refuses_keeps_nothing_from_another(
    watched: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sink(status=500) as bad, sink() as good:
        monkeypatch.setenv("BATCH_ETL_ALERT_URLS", f"{bad.url} {good.url} {good.url}")
        transform(watched.home, Succeeded=5)
        tick = Ticking(watched, instance)
        assert tick().startswith("2 new, 1 sent; 1 alert(s) to URL 1")
        bad.status = 200
        later(watched.home)
        assert tick() == "0 new, 1 sent"
        assert good.titles == ["batch_etl: mine is done"]
        assert bad.titles == ["batch_etl: mine is done"] * 2, "refused once, taken once"


def test_what_a_silent_sink_may_have_taken_is_not_sent_again(tmp_path: Path) -> None:
    with closing(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")) as ledger, sink(status=None) as it:
        told = places([f"{it.url}?rto=0.3"])
        note(ledger, [ALERT], [place.digest for place in told])
        report = deliver(ledger, told, "here")
        assert "may have arrived, and are not sent again" in report.trouble[0]
        later(tmp_path)
        assert deliver(ledger, told, "here") == type(report)(0, ())
        assert len(it.received) == 1


def test_two_processes_that_tick_at_once_send_one_message(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    Ledger(url).close()
    with sink() as it:
        processes = [_FORKS.Process(target=work, args=(url, it.url)) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
        assert it.titles == ["batch_etl: it failed"]


def work(url: str, destination: str) -> None:
    """One daemon's look and delivery."""
    told = places([destination])
    with closing(Ledger(url)) as ledger:
        note(ledger, [ALERT], [place.digest for place in told])
        deliver(ledger, told, "here")


def test_a_process_that_died_while_it_sent_leaves_word_and_nothing_is_sent_twice(
    tmp_path: Path,
) -> None:
    with closing(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")) as ledger, sink() as it:
        told = places([it.url])
        note(ledger, [ALERT], [told[0].digest])
        change(
            tmp_path,
            "UPDATE alerts SET status = 'claimed', claimed_at = '2000-01-01 00:00:00.000000'",
        )
        report = deliver(ledger, told, "here")
        assert report.sent == 0
        assert "may or may not have arrived" in report.trouble[0]
        assert deliver(ledger, told, "here").trouble == ()
        assert it.received == []


def test_many_alerts_are_few_messages(tmp_path: Path) -> None:
    with closing(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")) as ledger, sink() as it:
        told = places([it.url])
        many = [Alert(f"x:{n}", "x", "info", f"number {n:02}", "Next: no.") for n in range(25)]
        note(ledger, many, [told[0].digest])
        assert deliver(ledger, told, "here").sent == 25
        assert [text.count("INFO number") for text in it.texts] == [10, 10, 5]


def test_a_wrong_name_is_told_of_and_keeps_no_alert_back(
    watched: Project, instance: dg.DagsterInstance, place: Sink
) -> None:
    monitor(watched, edited(MONITORING, ("all", "[mine, mien]")))
    transform(watched.home, Succeeded=5)
    assert Ticking(watched, instance)() == (
        "1 new, 1 sent; alerts.completion: there is no pipeline 'mien'; did you mean 'mine'?"
    )


# secrets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        f"json://user:{SECRET}@127.0.0.1:1/{SECRET}?token={SECRET}",
        f"slack://{SECRET}",
        f"nonsense://{SECRET}/",
        SECRET,
    ],
)
def test_no_part_of_a_url_is_in_any_log_message_name_or_file(
    tmp_path: Path, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        caplog.at_level(1),
        caplog.at_level(1, "apprise"),
        closing(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")) as ledger,
    ):
        told = places([url])
        note(ledger, [ALERT], [told[0].digest])
        report = deliver(ledger, told, "here")
    assert report.sent == 0
    seen = f"{caplog.text} {report} {told} {service(told[0])}"
    assert SECRET not in seen
    assert holding(tmp_path, SECRET) == []


def test_a_url_is_in_nothing_that_dagster_shows(
    watched: Project, stored: dg.DagsterInstance, place: Sink, tmp_path: Path
) -> None:
    transform(watched.home, Succeeded=5)
    tick = Ticking(watched, stored)
    assert SECRET not in tick()
    assert SECRET not in repr(tick.sensor) + repr(watched.load())
    assert holding(tmp_path, SECRET) == []
    assert [message["title"] for message in place.received] == ["batch_etl: mine is done"]


def test_apprises_own_log_is_as_it_was_afterwards() -> None:
    before = logging.getLogger("apprise").disabled
    assert send(places(["nonsense://x"])[0], "t", "b", "info") is None
    assert logging.getLogger("apprise").disabled is before


# when it runs -------------------------------------------------------------------------------------


def test_the_sensor_runs_from_the_start_only_where_there_is_a_url(
    watched: Project, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = Ticking(watched, instance)
    assert without.sensor.default_status is dg.DefaultSensorStatus.STOPPED
    assert without() == "BATCH_ETL_ALERT_URLS names no URL to send alerts to"
    monkeypatch.setenv("BATCH_ETL_ALERT_URLS", "json://127.0.0.1:9/")
    assert Ticking(watched, instance).sensor.default_status is dg.DefaultSensorStatus.RUNNING


def test_only_what_is_asked_for_is_told_of(
    watched: Project, instance: dg.DagsterInstance, place: Sink
) -> None:
    monitor(watched, edited(MONITORING, ("completion: all", "kinds: [budget]")))
    failed(watched, instance)
    assert Ticking(watched, instance)() == "0 new, 0 sent"


@pytest.mark.parametrize(
    "text", [None, "", "[]", "{}", '{"at": "soon", "event": 1, "settled": true}', "1"]
)
def test_a_cursor_that_cannot_be_read_begins_an_hour_ago(text: str | None) -> None:
    now = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
    assert Cursor.read(text).since(now) == now - dt.timedelta(hours=1)


def test_a_cursor_goes_on_a_little_before_the_last_look_and_never_weeks() -> None:
    now = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)
    for hours, expected_h in ((1, 1 + 5 / 60), (24, 24 + 5 / 60), (24 * 30, 24 * 7)):
        cursor = Cursor.read(Cursor(now - dt.timedelta(hours=hours), 7).write())
        assert cursor.event == 7
        assert now - cursor.since(now) == dt.timedelta(hours=expected_h)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"stuck_hour": 1}, "unknown key 'stuck_hour'; did you mean 'stuck_hours'"),
        ({"kinds": ["failed_runs"]}, "failed_run"),
        ({"budget_share": 0}, "greater than 0"),
        ({"expiring_hours": 24}, "less than 24"),
        ({"completion": "some"}, "all"),
    ],
)
def test_mistakes_in_the_block_are_named(block: dict[str, Any], words: str) -> None:
    with pytest.raises(Exception, match=words):
        Alerts.load(block, "alerts")
