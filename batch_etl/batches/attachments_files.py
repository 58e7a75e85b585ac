"""The files that records name: read whole, from below one folder, never from elsewhere.

Records come from anywhere, and what is read is sent to the API: so a path that leads out of the
folder (``..``, an absolute path, a symbolic link) is refused, and so is all that is no plain file.
"""

from __future__ import annotations

import stat
from pathlib import Path

from batch_etl.batches.attachments import Unfit


def read_file(folder: Path, name: str, max_bytes: int) -> bytes:
    """The content of a file below ``folder``. Raises ``Unfit`` where it cannot be had."""
    path = _below(folder, name)
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise Unfit("is no file")
        if found.st_size > max_bytes:
            raise Unfit(f"has {found.st_size:,} bytes, and at most {max_bytes:,} can be sent")
        return path.read_bytes()
    except FileNotFoundError:
        raise Unfit(f"is not there (looked for below {folder})") from None
    except OSError as error:
        raise Unfit(f"cannot be read: {error.strerror or error}") from None


def stamp(folder: Path, name: str) -> str:
    """What tells that a file was changed, without reading it; of one that is not there, too."""
    try:
        found = _below(folder, name).stat()
    except (OSError, Unfit):
        return f"{name}\0"
    return f"{name}\0{found.st_size} {found.st_mtime_ns}"


def _below(folder: Path, name: str) -> Path:
    try:
        root = folder.resolve()
        path = (root / name).resolve()
    except (OSError, ValueError, RuntimeError) as error:
        raise Unfit(f"is no path: {error}") from None
    if not path.is_relative_to(root):
        raise Unfit(f"is outside of {folder}; only files below it are sent")
    return path
