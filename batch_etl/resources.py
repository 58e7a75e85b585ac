"""Dagster resources: settings in, engine objects out.

Five resources, one idea each, so that a project can replace one and keep the others: where files
lie, where the ledger is, whom to ask, where the tables are, where the queue is. None opens anything
before it is used, and a key is only ever a Dagster ``EnvVar``: it shows in no configuration, no log
and no metadata.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from pydantic import Field

from batch_etl import arrow, environment
from batch_etl.batches.budget import day_budget
from batch_etl.batches.client import Client
from batch_etl.batches.exchange import Endpoint, Exchange
from batch_etl.batches.ledger import Ledger
from batch_etl.batches.pricing import PriceList, PriceOverrides
from batch_etl.batches.runner import Runner
from batch_etl.errors import ConfigError
from batch_etl.files import Home
from batch_etl.queue import Queue
from batch_etl.warehouse import Warehouse


class StorageResource(dg.ConfigurableResource[Any]):
    """The folder in which everything lies."""

    home: str = Field(description="The root folder of all state (BATCH_ETL_HOME).")

    def at(self) -> Home:
        arrow.without_pandas()
        return Home.at(self.home)


class LedgerResource(dg.ConfigurableResource[Any]):
    """The ledger's database."""

    url: str | None = Field(
        default=None, description="SQLAlchemy URL; by default SQLite below the storage's home."
    )
    budget_day_usd: str | None = Field(
        default=None, description="Dollars that all pipelines may commit on one day (UTC)."
    )

    @contextmanager
    def open(self, home: Home) -> Iterator[Ledger]:
        """Raises ``LedgerError`` when it cannot be opened."""
        if self.url is None:
            Path(str(home.root)).mkdir(parents=True, exist_ok=True)
        ledger = Ledger(self.url or f"sqlite:///{home.ledger}")
        try:
            yield ledger
        finally:
            ledger.close()


class EndpointResource(dg.ConfigurableResource[Any]):
    """Whom to ask: Claude, or the emulator. Nothing is ever chosen by default."""

    choice: str | None = Field(default=None, description="anthropic or emulator.")
    base_url: str = Field(default=environment.ANTHROPIC_URL, description="Where the API is.")
    emulator_url: str = Field(
        default=environment.EMULATOR_URL, description="Where the emulator is."
    )
    api_key: str | None = Field(default=None, description="Sent as x-api-key.")
    auth_token: str | None = Field(default=None, description="Sent as Authorization: Bearer.")
    version: str = Field(default="2023-06-01", description="The anthropic-version header.")
    prices: str | None = Field(default=None, description="YAML file with dated price overrides.")
    max_tries: int = Field(default=5, description="Of each call that may be repeated.")
    create_grace_s: float = Field(
        default=60.0, description="How long a create that was never answered may take to show."
    )

    def _chosen(self) -> environment.EndpointChoice:
        choice = environment.endpoint_choice(self.choice)
        if choice is None and not (self.api_key or self.auth_token):
            raise ConfigError(environment.NO_ENDPOINT)
        return choice or "anthropic"

    def name(self) -> str:
        """The name under which answers are kept. Raises ``ConfigError`` without a choice."""
        return environment.endpoint_name(self._chosen(), self.base_url)

    @contextmanager
    def open(self) -> Iterator[Endpoint]:
        """Raises ``ConfigError`` when no endpoint was chosen, or the one chosen has no key."""
        choice = self._chosen()
        if choice == "emulator":
            client = Client(
                self.emulator_url,
                api_key=environment.EMULATOR_KEY,
                version=self.version,
                max_tries=self.max_tries,
                allow_emulator=True,
            )
        else:
            client = self._claude()
        with client:
            if choice == "emulator":
                _require_emulator(client, self.emulator_url)
            yield Endpoint(self.name(), client)

    def _claude(self) -> Client:
        if not (self.api_key or self.auth_token):
            raise ConfigError(environment.NO_KEY)
        return Client(
            self.base_url,
            api_key=self.api_key or self.auth_token,
            auth="x-api-key" if self.api_key else "bearer",
            version=self.version,
            max_tries=self.max_tries,
        )

    def price_list(self) -> PriceList:
        """Raises ``ConfigError`` for a price file that cannot be used."""
        if self.prices is None:
            return PriceList()
        path = Path(self.prices)
        try:
            entries = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise ConfigError(f"BATCH_ETL_PRICES: {path} cannot be read: {error}") from None
        return PriceList(PriceOverrides.load(entries, str(path)))


def _require_emulator(client: Client, url: str) -> None:
    if client.ping().emulator is None:
        raise ConfigError(
            f"BATCH_ETL_ENDPOINT=emulator, but the server at {url} does not say that it is an "
            "emulator; start one with `batch-etl emulator`, or correct BATCH_ETL_EMULATOR_URL"
        )


class WarehouseResource(dg.ConfigurableResource[Any]):
    """The DuckDB files that loads write and analysts open."""

    def open(self, home: Home) -> Warehouse:
        return Warehouse(home.warehouse_working, home.warehouse)


class QueueResource(dg.ConfigurableResource[Any]):
    """The queue's database; only pipelines with a queue for a source need it."""

    url: str | None = Field(
        default=None, description="SQLAlchemy URL; by default SQLite below the storage's home."
    )

    @contextmanager
    def open(self, home: Home) -> Iterator[Queue]:
        """Raises ``QueueError`` when it cannot be opened."""
        if self.url is None:
            Path(str(home.root)).mkdir(parents=True, exist_ok=True)
        with closing(Queue(self.url or f"sqlite:///{home.queue}")) as queue:
            yield queue


@contextmanager
def open_runner(
    storage: StorageResource, ledger: LedgerResource, endpoint: EndpointResource
) -> Iterator[Runner]:
    """The engine on these resources."""
    home = storage.at()
    with endpoint.open() as whom, ledger.open(home) as opened:
        prices, grace_s = endpoint.price_list(), endpoint.create_grace_s
        day_usd = day_budget(ledger.budget_day_usd)
        exchange = Exchange(home, opened, whom, prices, grace_s=grace_s, day_budget_usd=day_usd)
        yield Runner(exchange)


@contextmanager
def runner_of(settings: environment.Settings) -> Iterator[Runner]:
    """The engine as the environment says, for a command that needs no Dagster run."""
    settings.require_endpoint()
    endpoint = endpoint_of(settings, settings.api_key, settings.auth_token)
    storage = StorageResource(home=str(settings.home))
    with open_runner(storage, ledger_of(settings, settings.ledger_url), endpoint) as runner:
        yield runner


def ledger_of(settings: environment.Settings, url: Any) -> LedgerResource:
    """The ledger of an environment; its URL as a value, or as Dagster ``EnvVar``."""
    day_usd = settings.budget_day_usd
    return LedgerResource(url=url, budget_day_usd=None if day_usd is None else str(day_usd))


def endpoint_of(
    settings: environment.Settings, api_key: Any, auth_token: Any, *, max_tries: int = 5
) -> EndpointResource:
    """The endpoint of an environment; key and token as values, or as Dagster ``EnvVar``."""
    return EndpointResource(
        choice=settings.endpoint,
        base_url=settings.base_url,
        emulator_url=settings.emulator_url,
        api_key=api_key,
        auth_token=auth_token,
        version=settings.version,
        prices=str(settings.prices) if settings.prices else None,
        create_grace_s=settings.create_grace_s,
        max_tries=max_tries,
    )


def queue_of(settings: environment.Settings) -> QueueResource:
    """The queue of an environment, its URL as a value."""
    name = _queue_variable(settings)
    urls = {"BATCH_ETL_QUEUE": settings.queue_url, "BATCH_ETL_LEDGER": settings.ledger_url}
    return QueueResource(url=urls[name] if name else None)


def _queue_variable(settings: environment.Settings) -> str | None:
    """The variable that says where the queue is: a server that keeps the ledger keeps it too."""
    if settings.queue_url:
        return "BATCH_ETL_QUEUE"
    return "BATCH_ETL_LEDGER" if (settings.ledger_url or "").startswith("postgresql") else None


def from_settings(settings: environment.Settings) -> dict[str, Any]:
    """The resources of an environment, by the keys that the components' assets want."""
    queue_url = _queue_variable(settings)
    return {
        "storage": StorageResource(home=str(settings.home)),
        "ledger": ledger_of(settings, _secret("BATCH_ETL_LEDGER", settings.ledger_url)),
        "endpoint": endpoint_of(
            settings,
            _secret("ANTHROPIC_API_KEY", settings.api_key),
            _secret("ANTHROPIC_AUTH_TOKEN", settings.auth_token),
        ),
        "warehouse": WarehouseResource(),
        "queue": QueueResource(url=dg.EnvVar(queue_url) if queue_url else None),
    }


def _secret(name: str, value: str | None) -> Any:
    """The variable's name where it is set: Dagster reads the value only in the run."""
    return dg.EnvVar(name) if value else None
