"""The published file: a copy of the working one, swapped in as a whole.

What people open is a symbolic link to the newest copy. DuckDB opens a file three times on the way
to a connection (for its kind, for its headers, for its blocks), so a file that is renamed over
another is seen half old and half new by whoever is just opening it: an error, or worse. But it
follows links first, once, and then opens what it found. So a reader has one copy or another,
whatever is published meanwhile, and a process that connects anew sees the newest one.

    warehouse.duckdb -> warehouse.versions/20261123T164200.123456-9f3c/warehouse.duckdb

The copies have the link's own name, for DuckDB names the database by it. A copy goes when it is not
the newest any more and nobody can be on the way to it: with the next publishing, and not before
``KEPT_S`` have passed. Who has it open keeps it.

A POSIX file lock belongs to the process, and closing *any* descriptor of the file drops it.
DuckDB's lock on the working file must outlast the copy, so the descriptor read here is closed
after DuckDB's (and opened while no other thread of this process can hold that lock).
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from upath import UPath

from batch_etl.effects import effect
from batch_etl.errors import WarehouseError
from batch_etl.files import replacing, sync_folder
from batch_etl.warehouse.connection import Settings, writing

KEPT_S = 10.0
"""How long a copy is kept after a newer one took its place, at least."""

_BLOCK_BYTES = 2**18
"""A block that stays in the processor's cache: larger ones take twice the time, or more."""


def publish(working: Path, published: Path, settings: Settings) -> None:
    """Have ``published`` lead to the state that ``working`` has after its last commit."""
    if not working.exists():
        raise WarehouseError(f"{working} does not exist: load something before publishing.")
    with writing(working, settings) as connection:
        connection.execute("CHECKPOINT")
        with working.open("rb") as source:
            version = _copied(source, published)
            _point(published, version)
            _forget_older(published, version)
            connection.close()


def _copied(source: BinaryIO, published: Path) -> Path:
    """A new copy, in a folder of its own."""
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{uuid.uuid4().hex[:4]}"
    version = _versions(published) / stamp / published.name
    with (
        replacing(UPath(version), "warehouse") as temporary,
        Path(temporary.path).open("wb") as target,
    ):
        shutil.copyfileobj(source, target, _BLOCK_BYTES)
    sync_folder(_versions(published))
    return version


def _point(published: Path, version: Path) -> None:
    """Make ``published`` a link to this copy, at once."""
    link = published.with_name(f"{published.name}.{uuid.uuid4().hex[:12]}.tmp")
    older = published.resolve().parent
    try:
        link.symlink_to(version.relative_to(published.parent))
    except OSError as error:
        raise WarehouseError(
            f"{published} cannot be a symbolic link to {version}: {error}. Keep it on a file "
            "system that has such links."
        ) from error
    try:
        with effect("warehouse published"):
            os.replace(link, published)
            sync_folder(published.parent)
    except BaseException:
        _remove(link)
        raise
    _remove(_wal(published))  # of someone who wrote into the file that was here
    if older.parent == _versions(published).resolve():
        with suppress(FileNotFoundError):
            os.utime(older)  # it is an older one from now on


def _forget_older(published: Path, newest: Path) -> None:
    """Remove copies that nobody can be about to open, and what killed processes left of theirs.

    One that cannot be removed now is tried again by the next publishing.
    """
    for folder in _versions(published).iterdir():
        with suppress(OSError):
            is_old = time.time() - folder.stat().st_mtime > KEPT_S
            if is_old and folder != newest.parent:
                shutil.rmtree(folder)


def _versions(published: Path) -> Path:
    return published.with_name(f"{published.stem}.versions")


def restore(working: Path, published: Path) -> None:
    """Where there is a published file and no working one (a restored backup), begin from its
    copy.
    """
    if working.exists() or not published.exists():
        return
    working.parent.mkdir(parents=True, exist_ok=True)
    temporary = working.with_name(f"{working.name}.{os.getpid()}.tmp")
    try:
        shutil.copyfile(published, temporary)
        _remove(_wal(working))
        with suppress(FileExistsError), effect("warehouse restored"):  # another was faster
            os.link(temporary, working)
    finally:
        _remove(temporary)


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
