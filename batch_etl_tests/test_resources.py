from __future__ import annotations

import datetime as dt
from pathlib import Path

import dagster as dg
import pytest

from batch_etl import environment
from batch_etl.batches.client import Client
from batch_etl.batches.errors import LedgerError, Unreachable
from batch_etl.errors import BatchEtlError, ConfigError
from batch_etl.files import Home
from batch_etl.resources import (
    EndpointResource,
    LedgerResource,
    QueueResource,
    StorageResource,
    WarehouseResource,
    from_settings,
    open_runner,
    queue_of,
)
from batch_etl_tests.disguise import disguised
from batch_etl_tests.emulator.driver import Driver

KEY = "sk-ant-api03-MARKED"


def test_nothing_is_opened_or_made_before_it_is_used(tmp_path: Path) -> None:
    resources = from_settings(environment.read({"BATCH_ETL_HOME": str(tmp_path / "home")}))
    assert set(resources) == {"storage", "ledger", "endpoint", "warehouse", "queue"}
    assert not (tmp_path / "home").exists()


def test_the_storage_is_the_home(tmp_path: Path) -> None:
    home = StorageResource(home=str(tmp_path)).at()
    assert str(home.ledger) == str(tmp_path / "ledger.db")


def test_the_ledger_lies_in_the_home_unless_it_has_a_url(tmp_path: Path) -> None:
    home = Home.at(tmp_path / "home")
    with LedgerResource().open(home) as ledger:
        assert ledger.transforms() == []
    assert (tmp_path / "home" / "ledger.db").exists()
    elsewhere = tmp_path / "elsewhere.db"
    with LedgerResource(url=f"sqlite:///{elsewhere}").open(Home.at(tmp_path / "other")):
        assert elsewhere.exists()
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "url", ["postgresql://u:MARKED@127.0.0.1:1/x", "postgresl://u:MARKED@h/x", "MARKED"]
)
def test_a_ledger_that_cannot_be_opened_is_an_error_without_its_password(
    tmp_path: Path, url: str
) -> None:
    with pytest.raises(BatchEtlError) as caught, LedgerResource(url=url).open(Home.at(tmp_path)):
        pass
    assert "MARKED" not in str(caught.value)


def test_a_ledger_where_no_file_can_be_is_an_error_with_its_path(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/no/such/folder/ledger.db"
    with (
        pytest.raises(LedgerError, match="no/such/folder"),
        LedgerResource(url=url).open(Home.at(tmp_path)),
    ):
        pass


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"choice": "emulator"}, "emulator"),
        ({"choice": "emulator", "api_key": KEY}, "emulator"),
        ({"api_key": KEY}, "anthropic"),
        ({"auth_token": KEY}, "anthropic"),
        ({"choice": "anthropic", "base_url": "http://127.0.0.1:9"}, "custom:127.0.0.1:9"),
    ],
)
def test_an_endpoints_name_is_known_without_asking_it(settings: dict, name: str) -> None:
    assert EndpointResource(**settings).name() == name


def test_no_choice_and_no_key_is_an_error_that_names_both_ways() -> None:
    for call in (EndpointResource().name, EndpointResource().open().__enter__):
        with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY") as caught:
            call()
        assert "BATCH_ETL_ENDPOINT=emulator" in str(caught.value)


def test_a_choice_that_is_none_is_named() -> None:
    with pytest.raises(ConfigError, match="'emulater' is no endpoint; did you mean 'emulator'"):
        EndpointResource(choice="emulater").name()


def test_claude_without_a_key_is_an_error() -> None:
    with (
        pytest.raises(ConfigError, match="needs a key: set ANTHROPIC_API_KEY"),
        EndpointResource(choice="anthropic").open(),
    ):
        pass


def test_the_emulator_is_asked_whether_it_is_one(emulator: Driver) -> None:
    with EndpointResource(choice="emulator", emulator_url=emulator.url).open() as endpoint:
        assert endpoint.name == "emulator"
    with disguised(emulator.url) as other:
        impostor = EndpointResource(choice="emulator", emulator_url=other.url)
        with (
            pytest.raises(ConfigError, match="does not say that it is an emulator"),
            impostor.open(),
        ):
            pass


def test_nothing_listening_is_said_after_so_many_tries() -> None:
    nobody = EndpointResource(choice="emulator", emulator_url="http://127.0.0.1:9", max_tries=1)
    with (
        pytest.raises(Unreachable, match=r"start the server \(batch-etl emulator\)"),
        nobody.open(),
    ):
        pass


def test_a_client_is_closed_when_the_body_is_left(emulator: Driver) -> None:
    with EndpointResource(choice="emulator", emulator_url=emulator.url).open() as endpoint:
        client: Client = endpoint.client
    with pytest.raises(RuntimeError, match="closed"):
        client.ping()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["BATCH_ETL_PRICES", "prices.yaml"]),
        (b"a: [", ["BATCH_ETL_PRICES", "prices.yaml"]),
        (b"\xff\xfe\x00", ["prices.yaml"]),
        (b"just a text", ["prices.yaml"]),
    ],
)
def test_a_price_file_that_cannot_be_used_is_named(
    tmp_path: Path, content: bytes | None, words: list[str]
) -> None:
    path = tmp_path / "prices.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        EndpointResource(choice="emulator", prices=str(path)).price_list()
    for word in words:
        assert word in str(caught.value)


def test_a_price_file_with_comments_only_changes_no_price(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("# nothing yet\n")
    at = dt.datetime(2026, 11, 1, tzinfo=dt.UTC)
    rates = EndpointResource(prices=str(path)).price_list().batch_rates("claude-haiku-4-5", at)
    assert rates is not None
    assert rates == EndpointResource().price_list().batch_rates("claude-haiku-4-5", at)


def test_the_runner_works_on_the_resources(tmp_path: Path, emulator: Driver) -> None:
    storage = StorageResource(home=str(tmp_path / "home"))
    endpoint = EndpointResource(choice="emulator", emulator_url=emulator.url)
    with open_runner(storage, LedgerResource(), endpoint) as runner:
        assert runner.endpoint_name == "emulator"


def test_the_warehouse_has_its_files_in_the_home(tmp_path: Path) -> None:
    house = WarehouseResource().open(Home.at(tmp_path))
    assert house.published == tmp_path / "warehouse.duckdb"
    assert house.working == tmp_path / "warehouse" / "working.duckdb"


def test_secrets_are_variables_and_only_where_they_are_set() -> None:
    environ = {"ANTHROPIC_API_KEY": KEY, "BATCH_ETL_LEDGER": "sqlite:////tmp/MARKED.db"}
    resources = from_settings(environment.read(environ))
    endpoint = resources["endpoint"]
    assert endpoint.api_key == dg.EnvVar("ANTHROPIC_API_KEY")
    assert endpoint.auth_token is None
    assert resources["ledger"].url == dg.EnvVar("BATCH_ETL_LEDGER")
    assert "MARKED" not in repr(resources)


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({}, None),
        ({"BATCH_ETL_LEDGER": "sqlite:////srv/ledger.db"}, None),
        ({"BATCH_ETL_LEDGER": "postgresql+psycopg2://u:MARKED@h/x"}, "BATCH_ETL_LEDGER"),
        (
            {"BATCH_ETL_LEDGER": "postgresql+psycopg2://h/x", "BATCH_ETL_QUEUE": "sqlite:///q"},
            "BATCH_ETL_QUEUE",
        ),
    ],
)
def test_the_queue_lies_beside_a_ledger_on_a_server_or_in_the_home(
    tmp_path: Path, environ: dict[str, str], variable: str | None
) -> None:
    settings = environment.read(environ)
    url = from_settings(settings)["queue"].url
    assert (url.env_var_name if url else None) == variable
    assert queue_of(settings).url == (environ[variable] if variable else None)
    with QueueResource().open(Home.at(tmp_path / "home")) as queue:
        assert queue.waiting("p").items == 0
    assert (tmp_path / "home" / "queue.db").exists()
