"""Whom a pipeline asks, and what is kept of the key."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from batch_etl.emulator.server import running
from batch_etl_tests.components.make import DAILY, YAML, Project, holding
from batch_etl_tests.disguise import Disguise, disguised
from batch_etl_tests.emulator.driver import Driver
from batch_etl_tests.scripted_server import ScriptedServer, error

KEY = "sk-ant-api03-MARKED-in-this-test-only-0123456789"


@pytest.fixture
def claude(emulator: Driver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disguise]:
    """A server with a key that does not say that it is an emulator, not yet chosen."""
    with disguised(emulator.url) as disguise:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", disguise.url)
        yield disguise


def choose_claude(monkeypatch: pytest.MonkeyPatch, name: str = "ANTHROPIC_API_KEY") -> None:
    monkeypatch.setenv("BATCH_ETL_ENDPOINT", "anthropic")
    monkeypatch.setenv(name, KEY)


def test_another_endpoint_is_asked_again_and_its_rows_lie_apart(
    mine: Project, emulator: Driver, claude: Disguise, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine.write()
    assert mine.run().success
    rows = mine.query("FROM emulator.mine ORDER BY ALL")
    choose_claude(monkeypatch)
    run = mine.run()
    assert run.success
    host = claude.url.removeprefix("http://")
    schema = f"custom_{host.replace('.', '_').replace(':', '_')}"
    facts = run.facts("results")
    assert (facts["endpoint"], facts["transform/sent"]) == (f"custom:{host}", 5)
    assert facts["transform/cost_is"] == "billed"
    assert run.facts("table")["dagster/table_name"] == f"{schema}.mine"
    assert mine.query("FROM emulator.mine ORDER BY ALL") == rows
    endpoints = f"SELECT DISTINCT _endpoint FROM {schema}.mine"
    assert mine.query(endpoints) == [(f"custom:{host}",)]
    assert mine.query("SELECT DISTINCT _endpoint FROM emulator.mine") == [("emulator",)]
    assert emulator.status()["requests_received"] == 10


def test_going_back_to_an_endpoint_sends_nothing(
    mine: Project, emulator: Driver, claude: Disguise, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine.write()
    assert mine.run().success
    choose_claude(monkeypatch)
    assert mine.run().success
    monkeypatch.setenv("BATCH_ETL_ENDPOINT", "emulator")
    assert mine.run().success
    assert emulator.status()["requests_received"] == 10


def test_a_results_file_of_one_endpoint_is_not_loaded_for_another(
    mine: Project, emulator: Driver, claude: Disguise, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine.write()
    assert mine.run("records", "results").success
    choose_claude(monkeypatch)
    error = mine.run("table").error
    assert "there are no results of endpoint 'custom:" in error


def test_an_emulator_is_refused_where_claude_was_asked_for(
    mine: Project, emulator: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Emulated answers under Claude's name would be the worst of all errors."""
    mine.write()
    monkeypatch.setenv("ANTHROPIC_BASE_URL", emulator.url)
    choose_claude(monkeypatch)
    error = mine.run().error
    assert "is an emulator" in error
    assert "Choose the endpoint 'emulator'" in error
    assert emulator.status()["creates_accepted"] == 0
    assert not (mine.home / "results").exists()


def test_a_server_that_is_no_emulator_is_refused_where_the_emulator_was_asked_for(
    mine: Project, claude: Disguise, emulator: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine.write()
    monkeypatch.setenv("BATCH_ETL_EMULATOR_URL", claude.url)
    error = mine.run().error
    assert f"the server at {claude.url} does not say that it is an emulator" in error
    assert "BATCH_ETL_EMULATOR_URL" in error
    assert emulator.status()["creates_accepted"] == 0


def test_without_choice_and_key_the_error_names_both_ways(mine: Project) -> None:
    mine.write()
    error = mine.run().error
    assert "ANTHROPIC_API_KEY" in error
    assert "BATCH_ETL_ENDPOINT=emulator" in error
    assert mine.files() == ["records/mine/all.parquet"]


def test_claude_without_a_key_is_an_error_and_never_the_emulator(
    mine: Project, emulator: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine.write()
    monkeypatch.setenv("BATCH_ETL_ENDPOINT", "anthropic")
    error = mine.run().error
    assert "BATCH_ETL_ENDPOINT=anthropic needs a key: set ANTHROPIC_API_KEY" in error
    assert emulator.status()["creates_accepted"] == 0


def test_the_emulator_never_sees_the_key(
    mine: Project, emulator: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine.write()
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with disguised(emulator.url) as between:
        monkeypatch.setenv("BATCH_ETL_EMULATOR_URL", between.url)
        mine.run()
        assert between.keys == {"emulator-needs-no-key"}
        assert between.bearers == {None}


@pytest.mark.parametrize(
    ("variable", "keys", "bearers"),
    [
        ("ANTHROPIC_API_KEY", {KEY}, {None}),
        ("ANTHROPIC_AUTH_TOKEN", {None}, {f"Bearer {KEY}"}),
    ],
)
def test_the_key_goes_to_the_server_in_its_header_and_stays_nowhere(
    mine: Project,
    claude: Disguise,
    variable: str,
    keys: set[str | None],
    bearers: set[str | None],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    mine.write(DAILY)
    choose_claude(monkeypatch, variable)
    caplog.set_level(logging.DEBUG)
    with dg.instance_for_test(temp_dir=folder(mine.home / "dagster")) as instance:
        run = mine.run(first="2026-11-01", last="2026-11-03", instance=instance)
        assert run.success
        (stored,) = instance.get_runs()
        assert KEY not in repr(stored)
        assert KEY not in repr(instance.all_logs(stored.run_id))
    assert (claude.keys, claude.bearers) == (keys, bearers)
    assert holding(mine.home, "custom:127")  # the search finds what is there
    assert not holding(mine.home, KEY)
    assert not holding(mine.folder, KEY)
    assert KEY not in caplog.text
    assert KEY not in "".join(capfd.readouterr())


def test_a_key_that_the_server_echoes_in_its_error_stays_nowhere(
    mine: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine.write()
    choose_claude(monkeypatch)
    refusal = error(401, "authentication_error", f"invalid x-api-key {KEY}")
    with ScriptedServer().then(refusal) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        with dg.instance_for_test(temp_dir=folder(mine.home / "dagster")) as instance:
            run = mine.run(instance=instance)
            (stored,) = instance.get_runs()
            assert KEY not in repr(instance.all_logs(stored.run_id))
    assert "[key]" in run.error
    assert not holding(mine.home, KEY)


def test_definitions_name_the_variable_and_not_the_key(
    mine: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine.write(YAML)
    choose_claude(monkeypatch)
    monkeypatch.setenv("BATCH_ETL_LEDGER", "postgresql://u:MARKED-password@db/x")
    definitions = mine.load()
    shown = repr(definitions.resources)
    assert KEY not in shown
    assert "MARKED" not in shown
    assert "ANTHROPIC_API_KEY" in shown
    configured = definitions.resources or {}
    snapshot = repr({k: v.schema for k, v in configured.items() if hasattr(v, "schema")})
    assert KEY not in snapshot


def test_another_emulator_answers_like_the_first(mine: Project, emulator: Driver) -> None:
    """Two emulators are one endpoint: what one answered the other is not asked."""
    mine.write()
    assert mine.run().success
    with running() as url, Driver(url) as second, pytest.MonkeyPatch.context() as patch:
        patch.setenv("BATCH_ETL_EMULATOR_URL", url)
        assert mine.run().success
        assert second.status()["creates_accepted"] == 0


def folder(path: Path) -> str:
    path.mkdir(parents=True, exist_ok=True)
    return str(path)
