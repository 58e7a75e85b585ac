"""The root of the error tree, and the errors of the ground floor.

    BatchEtlError
    ├── ConfigError        a setting, a YAML key, a task: nothing was started
    ├── SourceError        the records: a missing file, a wrong id column, a duplicate id
    ├── WarehouseError     the DuckDB side: a locked file, a column that cannot be kept
    ├── QueueError         the queue's table cannot be used, or will not take an item
    └── (batch_etl.batches.errors: the API's and the engine's own)

Every message says what was wrong, where (file, line, key), and what to do next. A message never
holds a key or an authorization header. ``transient`` says whether the same call may succeed later
with nothing changed.
"""

from __future__ import annotations


class BatchEtlError(Exception):
    """Any failure that the user, not the programmer, can act on."""

    transient: bool = False


class ConfigError(BatchEtlError):
    """A setting or a piece of YAML that cannot be used; raised before anything is started."""


class SourceError(BatchEtlError):
    """The source's records cannot be read, or break the promise of one id a record."""


class WarehouseError(BatchEtlError):
    """The DuckDB warehouse cannot be opened or cannot take the rows as they are."""


class QueueError(BatchEtlError):
    """The queue cannot be opened, or refuses what was to be enqueued."""
