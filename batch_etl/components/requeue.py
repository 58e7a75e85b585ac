"""Records in review that are asked again: what their transform is called, and what it asks.

A requeue is a transform of its pipeline, so that it counts against the same budgets, but over no
partition of it. Its scope has names that no partition has, made of what is asked: the same requeue
is found again after a kill, and is never mistaken for an older run of the pipeline's partitions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

from batch_etl.batches.task import Task
from batch_etl.errors import ConfigError

_PREFIX = "review requeue "


def scope_key(partition: str | None, task: Task, request_keys: Iterable[str]) -> str:
    """The name, in a transform's scope, of these records of one partition."""
    asked = f"{partition!r} {task.fingerprint} {' '.join(request_keys)}"
    digest = hashlib.sha256(asked.encode()).hexdigest()[:12]
    return f"{_PREFIX}{digest} {'' if partition is None else partition}".strip()


def is_requeue(scope: Sequence[str | None]) -> bool:
    """Whether a transform is a requeue: no run of its pipeline can advance it."""
    return any(key is not None and key.startswith(_PREFIX) for key in scope)


def asked_otherwise(
    task: Task, model: str | None, prompt: str | None, max_tokens: int | None
) -> Task:
    """The task with what is given in the place of its own.

    Raises ``ConfigError`` where nothing is, or where the API would not take it.
    """
    given = {"claude_model": model, "prompt": prompt, "max_tokens": max_tokens}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    own = {name: getattr(task, name) for name in task.model_fields_set}
    changed = Task.load({**own, **changes}, "requeue")
    if changed.fingerprint == task.fingerprint:
        raise ConfigError(
            "a requeue asks otherwise, for what was asked is answered for good: give another "
            "--model, --prompt or --max-tokens"
        )
    return changed
