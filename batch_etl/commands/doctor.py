"""``batch-etl doctor``: is everything there that a run needs?"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import click

from batch_etl import environment
from batch_etl.commands.project import definitions, ledger, settings_at
from batch_etl.errors import BatchEtlError, ConfigError

_PACKAGES = ("batch-etl", "dagster", "duckdb", "pyarrow", "pandas", "httpx", "sqlalchemy")
_LOW_DISK_GB = 5.0
_MARKS = {"ok": ("ok", "green"), "warn": ("!!", "yellow"), "fail": ("XX", "red")}


@dataclass(frozen=True)
class Finding:
    """One check's result."""

    check: str
    state: Literal["ok", "warn", "fail"]
    detail: str


def doctor(home: Path | None, defs: Path | None, *, as_json: bool) -> None:
    """Run all checks and print them; exits with 1 if one failed."""
    settings = settings_at(home)
    checks: tuple[Callable[[environment.Settings], Finding], ...] = (
        _versions,
        _home,
        _endpoint,
        _key,
        _reachable,
        _ledger,
        _warehouse,
        _alerts,
    )
    findings = [*(check(settings) for check in checks), _pipelines(defs)]
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            mark, color = _MARKS[finding.state]
            click.echo(f"{click.style(mark, fg=color)}  {finding.check}: {finding.detail}")
    if any(finding.state == "fail" for finding in findings):
        sys.exit(1)


def _versions(settings: environment.Settings) -> Finding:  # noqa: ARG001
    listed = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return Finding("versions", "ok", f"Python {platform.python_version()}, {listed}")


def _home(settings: environment.Settings) -> Finding:
    place = settings.home
    while not place.exists():
        place = place.parent
    free_gb = shutil.disk_usage(place).free / 1e9
    detail = f"{settings.home}, {free_gb:.1f} GB free"
    if not os.access(place, os.W_OK):
        return Finding("home", "fail", f"{detail}; {place} cannot be written: set BATCH_ETL_HOME")
    if free_gb < _LOW_DISK_GB:
        return Finding("home", "warn", f"{detail}; a million records need about {_LOW_DISK_GB:.0f}")
    return Finding("home", "ok", detail)


def _endpoint(settings: environment.Settings) -> Finding:
    chosen = settings.chosen
    if chosen is None:
        return Finding("endpoint", "fail", environment.NO_ENDPOINT)
    url = settings.emulator_url if chosen == "emulator" else settings.base_url
    return Finding(
        "endpoint", "ok", f"{environment.endpoint_name(chosen, settings.base_url)}, {url}"
    )


def _key(settings: environment.Settings) -> Finding:
    if settings.has_key:
        name = "ANTHROPIC_API_KEY" if settings.api_key else "ANTHROPIC_AUTH_TOKEN"
        return Finding("key", "ok", f"{name} is set")
    if settings.chosen == "anthropic":
        return Finding("key", "fail", "no key: set ANTHROPIC_API_KEY")
    return Finding("key", "ok", "none set; the emulator needs none")


def _reachable(settings: environment.Settings) -> Finding:
    from batch_etl.resources import endpoint_of

    if settings.chosen is None or (settings.chosen == "anthropic" and not settings.has_key):
        return Finding("reachable", "warn", "not tried: no endpoint, or no key for it")
    resource = endpoint_of(settings, settings.api_key, settings.auth_token, max_tries=1)
    try:
        with resource.open() as endpoint:
            reply = endpoint.client.ping()
    except BatchEtlError as error:
        hint = "; `batch-etl run` starts one by itself" if settings.chosen == "emulator" else ""
        state = "warn" if settings.chosen == "emulator" else "fail"
        return Finding("reachable", state, f"{error}{hint}")
    return Finding("reachable", "ok", f"answered in {reply.round_trip_s * 1000:.0f} ms")


def _ledger(settings: environment.Settings) -> Finding:
    try:
        with ledger(settings) as opened:
            if opened is None:
                return Finding("ledger", "ok", "none yet; the first run makes it")
            waiting = len(opened.batches(statuses=["planned", "submitting", "submitted"]))
            return Finding("ledger", "ok", f"{opened.place}, {waiting} open batch(es)")
    except BatchEtlError as error:
        return Finding("ledger", "fail", str(error))


def _warehouse(settings: environment.Settings) -> Finding:
    import duckdb

    path = settings.home / "warehouse.duckdb"
    if not path.exists():
        return Finding("warehouse", "ok", "none yet; the first load makes it")
    try:
        duckdb.connect(str(path), read_only=True).close()
    except duckdb.Error as error:
        return Finding("warehouse", "fail", f"{path} cannot be opened: {error}")
    return Finding("warehouse", "ok", f"{path}, {path.stat().st_size / 1e6:.1f} MB")


def _alerts(settings: environment.Settings) -> Finding:
    """Nothing is sent, and no part of a URL is shown."""
    name = environment.ALERTS_SETTING
    if not settings.alert_urls:
        return Finding("alerts", "ok", f"none are sent; {name} is not set")
    from batch_etl.components.alert_urls import places, service

    services = {place.name: service(place) for place in places(settings.alert_urls)}
    wrong = [place for place, known in services.items() if known is None]
    if wrong:
        return Finding("alerts", "fail", f"apprise cannot use {', '.join(wrong)}: correct it")
    return Finding("alerts", "ok", f"sent to {', '.join(filter(None, services.values()))}")


def _pipelines(folder: Path | None) -> Finding:
    from batch_etl.commands.run import pipelines

    try:
        names = pipelines(definitions(folder))
    except ConfigError as error:
        return Finding("pipelines", "fail", str(error))
    return Finding("pipelines", "ok", ", ".join(names))
