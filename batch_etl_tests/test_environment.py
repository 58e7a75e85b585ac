from __future__ import annotations

from pathlib import Path

import pytest

from batch_etl.environment import (
    ALERTS_SETTING,
    ANTHROPIC_URL,
    EMULATOR_URL,
    SETTINGS,
    endpoint_name,
    read,
)
from batch_etl.errors import ConfigError

KEY = "sk-ant-api03-MARKED"


def test_an_empty_environment_has_defaults_and_no_endpoint() -> None:
    settings = read({})
    assert settings.home == Path("data").absolute()
    assert (settings.emulator_url, settings.base_url) == (EMULATOR_URL, ANTHROPIC_URL)
    assert settings.version == "2023-06-01"
    assert (settings.ledger_url, settings.prices, settings.chosen) == (None, None, None)
    assert not settings.has_key


@pytest.mark.parametrize(
    ("environ", "chosen"),
    [
        ({}, None),
        ({"ANTHROPIC_API_KEY": KEY}, "anthropic"),
        ({"ANTHROPIC_AUTH_TOKEN": KEY}, "anthropic"),
        ({"ANTHROPIC_API_KEY": "  "}, None),
        ({"ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}, None),
        ({"BATCH_ETL_EMULATOR_URL": "http://127.0.0.1:9"}, None),
        ({"BATCH_ETL_ENDPOINT": "emulator"}, "emulator"),
        ({"BATCH_ETL_ENDPOINT": "emulator", "ANTHROPIC_API_KEY": KEY}, "emulator"),
        ({"BATCH_ETL_ENDPOINT": "anthropic"}, "anthropic"),
        ({"BATCH_ETL_ENDPOINT": ""}, None),
    ],
)
def test_an_endpoint_is_chosen_by_name_or_by_a_key(environ: dict, chosen: str | None) -> None:
    assert read(environ).chosen == chosen


def test_every_setting_is_read() -> None:
    """Each variable of SETTINGS, set alone, changes the settings."""
    values = dict.fromkeys(SETTINGS, "http://127.0.0.1:9") | {
        "BATCH_ETL_ENDPOINT": "emulator",
        "BATCH_ETL_CREATE_GRACE_S": "5",
        "BATCH_ETL_BUDGET_DAY_USD": "5",
    }
    for name in SETTINGS:
        assert read({name: values[name]}) != read({}), name


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ("emulater", "did you mean 'emulator'?"),
        ("Anthropic", "did you mean 'anthropic'?"),
        ("openai", "known are anthropic, emulator"),
    ],
)
def test_an_unknown_endpoint_is_refused_with_those_there_are(value: str, word: str) -> None:
    with pytest.raises(ConfigError, match="BATCH_ETL_ENDPOINT") as caught:
        read({"BATCH_ETL_ENDPOINT": value})
    assert repr(value) in str(caught.value)
    assert word in str(caught.value)


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "90000"])
def test_a_grace_period_that_is_none_is_refused(value: str) -> None:
    with pytest.raises(ConfigError, match=f"BATCH_ETL_CREATE_GRACE_S: '{value}' is no number"):
        read({"BATCH_ETL_CREATE_GRACE_S": value})


def test_paths_are_absolute_so_that_another_working_folder_means_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = read({"BATCH_ETL_HOME": "state", "BATCH_ETL_PRICES": "prices.yaml"})
    assert (settings.home, settings.prices) == (tmp_path / "state", tmp_path / "prices.yaml")


def test_settings_show_no_secret() -> None:
    names = (*("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "BATCH_ETL_LEDGER"), ALERTS_SETTING)
    assert "MARKED" not in repr(read(dict.fromkeys(names, KEY)))


def test_the_urls_of_alerts_have_spaces_or_lines_between_them() -> None:
    value = "  slack://a/b/c,d\n json://user:p@127.0.0.1/ "
    assert read({"BATCH_ETL_ALERT_URLS": value}).alert_urls == (
        "slack://a/b/c,d",
        "json://user:p@127.0.0.1/",
    )
    assert read({}).alert_urls == ()


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        ("https://api.anthropic.com", "anthropic"),
        ("https://api.anthropic.com/", "anthropic"),
        ("https://API.Anthropic.com", "anthropic"),
        ("https://api.anthropic.com:443", "anthropic"),
        ("https://api.anthropic.com:8443", "custom:api.anthropic.com:8443"),
        ("http://api.anthropic.com", "custom:api.anthropic.com"),
        ("https://api.anthropic.com.evil.example", "custom:api.anthropic.com.evil.example"),
        ("https://gateway.example/claude", "custom:gateway.example"),
        ("https://gateway.example:443", "custom:gateway.example"),
        ("http://127.0.0.1:8321", "custom:127.0.0.1:8321"),
        ("http://[::1]:8321", "custom:[::1]:8321"),
        ("https://user:MARKED@gateway.example", "custom:gateway.example"),
    ],
)
def test_only_anthropics_own_origin_is_called_anthropic(base_url: str, name: str) -> None:
    assert endpoint_name("anthropic", base_url) == name


def test_a_base_url_that_is_none_is_named_by_its_variable() -> None:
    with pytest.raises(ConfigError, match="ANTHROPIC_BASE_URL"):
        endpoint_name("anthropic", "https://gateway.example:port")


def test_the_emulator_is_the_emulator_wherever_it_listens() -> None:
    assert endpoint_name("emulator", ANTHROPIC_URL) == "emulator"
