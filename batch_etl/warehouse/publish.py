"""The published file: a copy of the working one, swapped in by rename.

A reader that has the old file open keeps it; who opens the path afterwards sees the new one; nobody
sees half of one, and no reader's lock is on the file that loads write.

A POSIX file lock belongs to the process, and closing *any* descriptor of the file drops it.
DuckDB's lock on the working file must outlast the copy, so the descriptor read here is closed
after DuckDB's (and opened while no other thread of this process can hold that lock).
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from upath import UPath

from batch_etl.effects import effect
from batch_etl.errors import WarehouseError
from batch_etl.files import replacing
from batch_etl.warehouse.connection import Settings, writing

_BLOCK_BYTES = 2**18
"""A block that stays in the processor's cache: larger ones take twice the time, or more."""


def publish(working: Path, published: Path, settings: Settings) -> None:
    """Replace ``published`` by the state that ``working`` has after its last commit."""
    if not working.exists():
        raise WarehouseError(f"{working} does not exist: load something before publishing.")
    with writing(working, settings) as connection:
        connection.execute("CHECKPOINT")
        with working.open("rb") as source:
            with replacing(UPath(published), "warehouse") as temporary:
                with Path(temporary.path).open("wb") as target:
                    shutil.copyfileobj(source, target, _BLOCK_BYTES)
                _remove(_wal(published))
            connection.close()


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
