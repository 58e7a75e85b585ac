"""The settings, and the one reader of the environment.

:data:`SETTINGS` names every variable with its meaning.

Whom to ask is chosen, never guessed: no choice and no key is an error, and a missing key never
leads to emulated answers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Literal, cast
from urllib.parse import urlsplit

from batch_etl.batches.budget import DAY_SETTING, day_budget
from batch_etl.errors import ConfigError
from batch_etl.strict import did_you_mean

ANTHROPIC_URL = "https://api.anthropic.com"
EMULATOR_URL = "http://127.0.0.1:8321"
EMULATOR_KEY = "emulator-needs-no-key"

ALERTS_SETTING = "BATCH_ETL_ALERT_URLS"
"""The environment variable with the URLs that alerts are sent to."""

EndpointChoice = Literal["anthropic", "emulator"]

SETTINGS: dict[str, str] = {
    "BATCH_ETL_HOME": "folder in which all state lies (default `data`)",
    "BATCH_ETL_ENDPOINT": "whom to ask: `anthropic` (default where a key is set) or `emulator`",
    "BATCH_ETL_EMULATOR_URL": f"where the emulator listens (default `{EMULATOR_URL}`)",
    "BATCH_ETL_LEDGER": "SQLAlchemy URL of the ledger (default: SQLite, `ledger.db` in the home)",
    "BATCH_ETL_QUEUE": (
        "SQLAlchemy URL of the queue's tables (default: the ledger's database where that is "
        "PostgreSQL, else SQLite, `queue.db` in the home)"
    ),
    "BATCH_ETL_PRICES": "YAML file with dated price overrides",
    "BATCH_ETL_BUDGET_DAY_USD": (
        "dollars that all pipelines of the ledger may commit on one day (UTC) at one endpoint; "
        "over it nothing is sent (default: no budget)"
    ),
    "BATCH_ETL_CREATE_GRACE_S": (
        "seconds that a batch whose create call was never answered may take to show in the API's "
        "list, before its requests are sent again (default `60`)"
    ),
    "BATCH_ETL_ALERT_URLS": (
        "where alerts are sent: apprise URLs with spaces between them (default: nowhere)"
    ),
    "ANTHROPIC_API_KEY": "the API key, sent as `x-api-key`",
    "ANTHROPIC_AUTH_TOKEN": "a token instead of a key, sent as `Authorization: Bearer`",
    "ANTHROPIC_BASE_URL": f"any server that speaks the API (default `{ANTHROPIC_URL}`)",
    "ANTHROPIC_VERSION": "the `anthropic-version` header (default `2023-06-01`)",
}
"""Every environment variable that is read, with its meaning."""

NO_ENDPOINT = (
    "no endpoint was chosen: set ANTHROPIC_API_KEY to ask Claude, or BATCH_ETL_ENDPOINT=emulator "
    "to try everything without a key on the emulator (its answers are made up by a program)"
)

NO_KEY = (
    "BATCH_ETL_ENDPOINT=anthropic needs a key: set ANTHROPIC_API_KEY (or ANTHROPIC_AUTH_TOKEN), or "
    "choose BATCH_ETL_ENDPOINT=emulator"
)


@dataclass(frozen=True)
class Settings:
    """What the environment says; nothing is checked against the world yet."""

    home: Path
    endpoint: EndpointChoice | None
    emulator_url: str
    ledger_url: str | None = field(repr=False)
    prices: Path | None
    api_key: str | None = field(repr=False)
    auth_token: str | None = field(repr=False)
    base_url: str
    version: str
    create_grace_s: float = 60.0
    budget_day_usd: Decimal | None = None
    queue_url: str | None = field(default=None, repr=False)
    alert_urls: tuple[str, ...] = field(default=(), repr=False)

    @property
    def has_key(self) -> bool:
        return bool(self.api_key or self.auth_token)

    @property
    def chosen(self) -> EndpointChoice | None:
        """The endpoint chosen by name, or by there being a key."""
        return self.endpoint or ("anthropic" if self.has_key else None)

    def require_endpoint(self) -> EndpointChoice:
        """The endpoint chosen; ``ConfigError`` where there is none, or no key for it."""
        if self.chosen is None:
            raise ConfigError(NO_ENDPOINT)
        if self.chosen == "anthropic" and not self.has_key:
            raise ConfigError(NO_KEY)
        return self.chosen


def read(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of ``environ`` (default: the process's). Raises ``ConfigError``."""
    values = os.environ if environ is None else environ

    def get(name: str) -> str | None:
        return values.get(name, "").strip() or None

    prices = get("BATCH_ETL_PRICES")
    return Settings(
        home=Path(get("BATCH_ETL_HOME") or "data").absolute(),
        endpoint=endpoint_choice(get("BATCH_ETL_ENDPOINT")),
        emulator_url=get("BATCH_ETL_EMULATOR_URL") or EMULATOR_URL,
        ledger_url=get("BATCH_ETL_LEDGER"),
        prices=Path(prices).absolute() if prices else None,
        api_key=get("ANTHROPIC_API_KEY"),
        auth_token=get("ANTHROPIC_AUTH_TOKEN"),
        base_url=get("ANTHROPIC_BASE_URL") or ANTHROPIC_URL,
        version=get("ANTHROPIC_VERSION") or "2023-06-01",
        budget_day_usd=day_budget(get(DAY_SETTING)),
        alert_urls=tuple((get(ALERTS_SETTING) or "").split()),
        queue_url=get("BATCH_ETL_QUEUE"),
        create_grace_s=_seconds("BATCH_ETL_CREATE_GRACE_S", get("BATCH_ETL_CREATE_GRACE_S"), 60.0),
    )


def _seconds(name: str, value: str | None, default: float) -> float:
    if value is None:
        return default
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= 86_400.0:
        raise ConfigError(f"{name}: {value!r} is no number of seconds from 0 to 86400")
    return seconds


def endpoint_choice(value: str | None) -> EndpointChoice | None:
    """``value`` if it is an endpoint, or None. Raises ``ConfigError``."""
    if value in (None, "anthropic", "emulator"):
        return cast("EndpointChoice | None", value)
    near = did_you_mean(value, ["anthropic", "emulator"])
    raise ConfigError(f"BATCH_ETL_ENDPOINT: {value!r} is no endpoint{near}")


def endpoint_name(choice: EndpointChoice, base_url: str) -> str:
    """The name under which answers and money are kept apart.

    Only Anthropic's own origin is called ``anthropic``; another server at ``ANTHROPIC_BASE_URL`` (a
    gateway, a local model) is ``custom:<host>``, because its answers are not known to be Claude's.
    """
    if choice == "emulator":
        return "emulator"
    try:
        origin, anthropic = _origin(base_url), _origin(ANTHROPIC_URL)
    except ValueError as error:
        raise ConfigError(f"ANTHROPIC_BASE_URL is not a URL ({error})") from None
    return "anthropic" if origin == anthropic else f"custom:{origin[1]}"


def _origin(url: str) -> tuple[str, str]:
    """Scheme and host of a URL, with the port if it is not the scheme's own, and no user."""
    parts = urlsplit(url.strip())
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, host if parts.port in (None, usual) else f"{host}:{parts.port}"
