"""Records through Claude's Message Batches API, with Dagster: nothing paid twice, nothing lost.

For Python code of another Dagster project:

    build_batch_pipeline(...)    a pipeline's definitions, from the fields that its YAML would have
    environment_resources()      the resources that pipelines need, as the environment says

Both are imported when they are used: a command must not wait for Dagster.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LIBRARY = ("build_batch_pipeline", "environment_resources")


def __getattr__(name: str) -> Any:
    if name not in _LIBRARY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("batch_etl.components.library"), name)


def __dir__() -> list[str]:
    return [*globals(), *_LIBRARY]
