"""Records from a database: a query through SQLAlchemy, streamed.

The database is named by a URL in an environment variable, or is a SQLite file. The query is one
read transaction that is always rolled back (PostgreSQL: read only, and the same moment for all its
blocks; SQLite: the file is opened read only). Rows come a few hundred at a time where the driver
can (a cursor on the server; SQLite steps anyway), and are typed by :mod:`~batch_etl.sources.rows`.

Bounds are values of the statement. A time is given in UTC; PostgreSQL gets it with its zone and the
session in UTC, other databases without a zone, SQLite, which has no times, as ISO 8601 text: the
day alone at midnight (``2026-11-01``), else day and time (``2026-11-01 06:00:00``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal, Self
from urllib.parse import quote

import pyarrow as pa
import sqlalchemy as sa
import sqlalchemy.exc
from pydantic import Field, model_validator

from batch_etl.errors import SourceError
from batch_etl.sources.asked import Block, QuerySource, distinct
from batch_etl.sources.bounds import Bounds, rewritten
from batch_etl.sources.rows import Typed
from batch_etl.sources.secret import secret, without
from batch_etl.sources.times import UTC_MICROSECONDS

ROWS_PER_FETCH = 500

_POSTGRESQL: dict[int, pa.DataType] = {
    16: pa.bool_(),
    20: pa.int64(),
    21: pa.int64(),
    23: pa.int64(),
    25: pa.string(),
    114: pa.string(),
    700: pa.float64(),
    701: pa.float64(),
    1042: pa.string(),
    1043: pa.string(),
    1082: pa.date32(),
    1114: pa.timestamp("us"),
    1184: UTC_MICROSECONDS,
    2950: pa.string(),
    3802: pa.string(),
}
"""Columns' types by the numbers that PostgreSQL has for them (its catalog pg_type)."""

_NUMERIC = 1700


class SqlSource(QuerySource):
    """Which database, and what is asked of it."""

    type: Literal["sql"]
    url_env: str | None = Field(
        default=None,
        description="The environment variable with the database's SQLAlchemy URL, as in "
        "`postgresql+psycopg2://user:password@host/database`; the YAML holds no password",
    )
    path: str | None = Field(
        default=None, description="Instead: a SQLite file; relative to the YAML's folder"
    )

    @model_validator(mode="after")
    def _is_one_database(self) -> Self:
        if (self.url_env is None) == (self.path is None):
            raise ValueError("name the database: either `url_env`, or `path` of a SQLite file")
        if self.url_env is not None and "://" in self.url_env:
            raise ValueError(
                "url_env is the name of an environment variable that holds the URL, not the URL: "
                "a password has no place in YAML"
            )
        return self

    def blocks(self, bounds: Bounds) -> Iterator[Block]:
        """Ask once, in a transaction that changes nothing. Raises SourceError without secrets."""
        url = self._url()
        with _explained(self._origin, url):
            engine = sa.create_engine(url, poolclass=sa.NullPool, hide_parameters=True)
            yield from self._answer(engine, bounds)

    @property
    def _origin(self) -> str:
        return f"the query on {self.url_env or self.path}"

    def _url(self) -> sa.URL:
        if self.path is not None:
            path = self.base_folder / self.path
            if not path.is_file():
                raise SourceError(f"path: there is no SQLite file {path}; correct `path`")
            return sa.URL.create(
                "sqlite", database=f"file:{quote(str(path))}", query={"mode": "ro", "uri": "true"}
            )
        text = secret(self.url_env or "", "url_env")
        try:
            return sa.make_url(text)
        except (sqlalchemy.exc.ArgumentError, ValueError):
            raise SourceError(
                f"url_env: what {self.url_env} holds is no database URL; it is like "
                "postgresql+psycopg2://user:password@host:5432/database, with special characters "
                "of the password percent-encoded"
            ) from None

    def _answer(self, engine: sa.Engine, bounds: Bounds) -> Iterator[Block]:
        statement = sa.text(rewritten(self.query, lambda name: f":{name}", _escaped))
        named = {name: _value(bounds[name], engine.dialect.name) for name in self.bounds}
        with engine.connect() as connection:
            _prepare(connection)
            options = {"yield_per": ROWS_PER_FETCH}
            result = connection.execute(statement, named, execution_options=options)
            if not result.returns_rows:
                raise SourceError("query: it gives no rows; write one SELECT")
            known = _known(engine.dialect.name, result)
            typed = Typed(distinct(list(result.keys())), self._origin, self.types, known)
            yield from typed.blocks(result.partitions())


def _prepare(connection: sa.Connection) -> None:
    """Make the session one that reads, at one moment, in UTC."""
    if connection.dialect.name == "postgresql":
        connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        connection.exec_driver_sql("SET LOCAL TIME ZONE 'UTC'")


def _escaped(text: str) -> str:
    """Quoted text in SQLAlchemy's words, where a colon before a name would be a bound."""
    return text.replace(":", "\\:")


def _value(bound: datetime | str, dialect: str) -> datetime | str:
    if isinstance(bound, str):
        return bound
    moment = bound.astimezone(UTC)
    if dialect == "postgresql":
        return moment
    naive = moment.replace(tzinfo=None)
    if dialect != "sqlite":
        return naive
    return naive.isoformat(" ").removesuffix(" 00:00:00")


def _known(dialect: str, result: sa.CursorResult[Any]) -> dict[str, pa.DataType]:
    """The types that the driver tells of, by column."""
    described: Sequence[Any] | None = result.cursor.description if result.cursor else None
    if dialect != "postgresql" or described is None:
        return {}
    found = {column[0]: _postgresql(*column[1:6]) for column in described}
    return {name: kind for name, kind in found.items() if kind is not None}


def _postgresql(
    number: int, _shown: Any, _size: Any, precision: int | None, scale: int | None
) -> pa.DataType | None:
    if number == _NUMERIC and precision and scale is not None and 0 <= scale <= precision <= 38:
        return pa.decimal128(precision, scale)
    return _POSTGRESQL.get(number)


@contextmanager
def _explained(origin: str, url: sa.URL) -> Iterator[None]:
    """Errors of driver and database in their own words, without statement, values and secrets."""
    try:
        yield
    except sqlalchemy.exc.NoSuchModuleError:
        raise SourceError(f"{origin}: SQLAlchemy knows no database {url.drivername!r}") from None
    except ImportError as error:
        raise SourceError(
            f"{origin}: the driver of {url.drivername!r} is not installed ({error}); install it, "
            "or name another one in the URL, as postgresql+psycopg2:// does"
        ) from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        said = str(getattr(error, "orig", None) or error).strip()
        told = without(said, url.password, *map(str, url.query.values()))
        raise SourceError(f"{origin}: {told}") from None
