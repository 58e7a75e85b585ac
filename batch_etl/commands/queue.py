"""``batch-etl queue``: what waits, and the drains; and the part of ``run`` that drains a queue."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batch_etl.commands import project
from batch_etl.errors import ConfigError
from batch_etl.strict import did_you_mean

if TYPE_CHECKING:
    import dagster as dg

    from batch_etl.components.steps import Pipeline
    from batch_etl.environment import Settings
    from batch_etl.queue import Drain, Queue, Waiting
    from batch_etl.sources import QueueSource


def show(home: Path | None, pipeline: str, limit: int, *, as_json: bool) -> None:
    """Print how much waits, since when, and the newest drains."""
    settings = project.settings_at(home)
    with _existing(settings) as queue:
        known = queue.pipelines() if queue else []
        if queue is None or pipeline not in known:
            near = did_you_mean(pipeline, known)
            raise ConfigError(f"nothing was ever enqueued for pipeline {pipeline!r}{near}")
        waiting, drains = queue.waiting(pipeline), queue.drains(pipeline, limit)
    if as_json:
        click.echo(json.dumps(_facts(pipeline, waiting, drains)))
        return
    click.echo(f"{pipeline}: {_sentence(waiting)}")
    for drain in drains:
        click.echo(f"  {drain.key}  {drain.items:,} item(s)  {_state(drain)}")


def _facts(pipeline: str, waiting: Waiting, drains: Sequence[Drain]) -> dict[str, Any]:
    return {
        "pipeline": pipeline,
        "waiting": waiting.items,
        "oldest_age_s": round(waiting.age_s, 3) if waiting.items else None,
        "drains": [
            {
                "partition": drain.key,
                "items": drain.items,
                "drained_at": drain.drained_at.isoformat(),
                "asked_at": drain.asked_at.isoformat() if drain.asked_at else None,
                "loaded_at": drain.loaded_at.isoformat() if drain.loaded_at else None,
            }
            for drain in drains
        ],
    }


def _sentence(waiting: Waiting) -> str:
    if not waiting.items:
        return "nothing waits"
    return f"{waiting.items:,} item(s) wait, the oldest for {_spoken(waiting.age_s)}"


def _spoken(seconds: float) -> str:
    from batch_etl.batches.watching import spoken

    return spoken(seconds)


def _state(drain: Drain) -> str:
    if drain.loaded_at is not None:
        return f"loaded {drain.loaded_at:%Y-%m-%d %H:%M:%S} UTC"
    return f"drained {drain.drained_at:%Y-%m-%d %H:%M:%S} UTC, not loaded yet"


@contextmanager
def _existing(settings: Settings) -> Iterator[Queue | None]:
    """The queue; None where it is not there yet, and nothing is made."""
    from batch_etl.files import Home
    from batch_etl.resources import queue_of

    path = Home.at(str(settings.home)).queue
    if not project.is_there(queue_of(settings).url or f"sqlite:///{path}"):
        yield None
        return
    with opened(settings) as queue:
        yield queue


# for other commands -------------------------------------------------------------------------------


@contextmanager
def opened(settings: Settings) -> Iterator[Queue]:
    """The queue as the environment says."""
    from batch_etl.files import Home
    from batch_etl.resources import queue_of

    with queue_of(settings).open(Home.at(str(settings.home))) as queue:
        yield queue


def is_queue(pipeline: str) -> bool:
    """Whether the pipeline, whose definitions are loaded, has a queue for a source."""
    return _source(pipeline) is not None


def source_of(pipeline: str) -> QueueSource:
    """Raises ``ConfigError`` for a pipeline that is not there, or has another source."""
    from batch_etl.components.steps import LOADED

    if pipeline not in LOADED:
        near = did_you_mean(pipeline, sorted(LOADED))
        raise ConfigError(f"there is no pipeline {pipeline!r}{near}")
    source = _source(pipeline)
    if source is None:
        raise ConfigError(
            f"pipeline {pipeline!r} has no queue: nothing can be enqueued for it. A queue is a "
            "`source` of `type: queue`"
        )
    return source


def _source(pipeline: str) -> QueueSource | None:
    from batch_etl.components.steps import LOADED
    from batch_etl.sources import QueueSource

    loaded = LOADED.get(pipeline)
    return loaded.source if loaded and isinstance(loaded.source, QueueSource) else None


def to_run(
    settings: Settings,
    instance: dg.DagsterInstance,
    pipeline: str,
    wanted: Sequence[str],
    all_partitions: bool,
) -> list[str]:
    """The drains to run: those wanted, or a new one of all that waits and those still open.

    Raises ``ConfigError`` for a drain that there is not.
    """
    from batch_etl.components.queue import know, still_open

    with opened(settings) as queue:
        if not wanted:
            queue.drain(pipeline)
        known = [drain.key for drain in reversed(queue.drains(pipeline))]
        _check_known(pipeline, wanted, known)
        still = [drain.key for drain in still_open(queue, instance, pipeline)]
        keys = list(wanted) or (known if all_partitions else still)
    know(instance, pipeline, keys)
    return keys


def to_look_at(
    settings: Settings, pipeline: str, wanted: Sequence[str], all_partitions: bool
) -> list[str | None]:
    """The drains that are meant, none of them made; by default what waits."""
    from batch_etl.queue import WAITING

    with opened(settings) as queue:
        known = [drain.key for drain in reversed(queue.drains(pipeline))]
        if not (wanted or all_partitions) and not queue.waiting(pipeline).items:
            raise ConfigError(f"pipeline {pipeline!r}: nothing waits in its queue")
    _check_known(pipeline, wanted, known)
    return [*(known if all_partitions else wanted or [WAITING])]


@contextmanager
def readable(pipeline: Pipeline, settings: Settings) -> Iterator[Pipeline]:
    """The pipeline with a source that can be read, also where that is a queue."""
    from batch_etl.components.queue import readable as bound
    from batch_etl.files import Home
    from batch_etl.resources import queue_of

    with bound(pipeline, queue_of(settings), Home.at(str(settings.home))) as whole:
        yield whole


def _check_known(pipeline: str, wanted: Sequence[str], known: Sequence[str]) -> None:
    for key in wanted:
        if key not in known:
            raise ConfigError(
                f"pipeline {pipeline!r} has no drain {key!r}{did_you_mean(key, [*known])}"
            )


def note_loaded(settings: Settings, instance: dg.DagsterInstance, pipeline: str) -> None:
    """Note the drains whose rows have come into the table."""
    from batch_etl.components.queue import still_open

    with opened(settings) as queue:
        still_open(queue, instance, pipeline)
