"""``batch-etl enqueue``: files of work items into the queue of a pipeline, all or nothing."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batch_etl.commands import project, queue
from batch_etl.errors import ConfigError

if TYPE_CHECKING:
    from batch_etl.queue import Enqueued

STDIN = "-"


def enqueue(
    home: Path | None,
    pipeline: str,
    files: Sequence[str],
    defs: Path | None,
    key: str | None,
    *,
    as_json: bool,
) -> None:
    """Have the items of the files wait; the same file again changes nothing."""
    from batch_etl.queue import Wanted, enqueue_files

    if key is not None and len(files) > 1:
        raise ConfigError("--key names one delivery: give one FILE with it")
    settings = project.settings_at(home)
    definitions = project.definitions(defs)
    source = queue.source_of(pipeline)
    wanted = Wanted(source.id, source.on_duplicate, source.types)
    with _paths(files) as paths, queue.opened(settings) as opened:
        done = enqueue_files(opened, pipeline, paths, wanted, key=key)
        waiting = opened.waiting(pipeline)
    del definitions  # until here: they keep the pipeline
    if as_json:
        click.echo(json.dumps([_facts(one) for one in done]))
        return
    for one in done:
        click.echo(_sentence(one))
    click.echo(f"{pipeline}: {waiting.items:,} item(s) wait")


@contextmanager
def _paths(files: Sequence[str]) -> Iterator[dict[str, Path]]:
    """The files; what comes on stdin becomes one, JSON Lines."""
    for name in files:
        if name != STDIN and not Path(name).is_file():
            raise ConfigError(f"there is no file {name}")
    with tempfile.TemporaryDirectory(prefix="batch_etl_stdin_") as folder:
        spooled = Path(folder) / "stdin.jsonl"
        if STDIN in files:
            with spooled.open("wb") as copy:
                shutil.copyfileobj(sys.stdin.buffer, copy)
        yield {name: spooled if name == STDIN else Path(name) for name in files}


def _facts(done: Enqueued) -> dict[str, object]:
    already = done.already.isoformat() if done.already else None
    return {**asdict(done), "already": already}


def _sentence(done: Enqueued) -> str:
    if done.already is not None:
        return (
            f"{done.origin}: enqueued already at {done.already:%Y-%m-%d %H:%M:%S} UTC, nothing was "
            "done; with another --key it is enqueued again"
        )
    facts = [
        f"{done.items:,} item(s) enqueued",
        f"{done.replaced:,} in the place of others" if done.replaced else "",
        f"{done.passed_over:,} waited already" if done.passed_over else "",
    ]
    return f"{done.origin}: {', '.join(filter(None, facts))}"
