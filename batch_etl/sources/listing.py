"""Patterns to files: which files a pattern means, and what to say when it means none.

A pattern is a path, with ``*``, ``?``, ``[...]`` and ``**`` as globs, relative to a base folder or
absolute or a URL that fsspec knows. A path that exists as written is taken as written, whatever
characters it has. Files come sorted by path, each once; hidden files are matched by no glob.

Placeholders make one file set a partition: ``{partition}`` is the key, ``{start:%Y/%m/%d}`` and
``{end:...}`` are the window's bounds in strftime's words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from glob import escape

from upath import UPath

from batch_etl.errors import SourceError
from batch_etl.sources.source import PartitionSlice

_PLACEHOLDER = re.compile(r"\{(partition|start|end)(?::([^{}]*))?\}")
_GLOB = re.compile(r"[*?\[]")


def has_placeholder(pattern: str) -> bool:
    return _PLACEHOLDER.search(pattern) is not None


def fill_placeholders(pattern: str, piece: PartitionSlice) -> str:
    """The pattern of one partition's files; what is filled in is never itself a glob."""

    def filled(match: re.Match[str]) -> str:
        name, layout = match.groups()
        if name == "partition":
            return escape(piece.key)
        moment = piece.start if name == "start" else piece.end
        if moment is None:
            raise SourceError(
                f"{pattern}: {match.group()} needs a time-partitioned pipeline, but partition "
                f"{piece.key!r} has no {name}; use {{partition}} instead"
            )
        return escape(moment.strftime(layout or "%Y-%m-%d"))

    return _PLACEHOLDER.sub(filled, pattern)


def list_files(
    patterns: Sequence[str], base_folder: UPath, missing_ok: bool = False
) -> list[UPath]:
    """The files that the patterns name; each pattern must name one, unless ``missing_ok``."""
    found: dict[str, UPath] = {}
    for pattern in patterns:
        try:
            matches = list(_matches(pattern, base_folder))
        except PermissionError as error:
            raise SourceError(
                f"{pattern}: permission denied while looking in {error.filename or base_folder}; "
                "let this user read it (chmod, chown), or run as one who may"
            ) from error
        if not matches and not missing_ok:
            raise SourceError(_none_found(pattern, base_folder))
        found.update((str(path), path) for path in matches)
    return [found[name] for name in sorted(found)]


def _matches(pattern: str, base_folder: UPath) -> Iterator[UPath]:
    path = _under(base_folder, pattern)
    if path.is_file():
        yield path
    elif path.is_dir():
        raise SourceError(
            f"{path} is a folder; name the files in it, for instance {str(path).rstrip('/')}/*.csv"
        )
    elif _GLOB.search(pattern):
        folder, rest = _split(path)
        for match in folder.glob(rest):
            if not match.name.startswith(".") and match.is_file():
                yield match


def _under(base_folder: UPath, pattern: str) -> UPath:
    if "://" in pattern or pattern.startswith("/"):
        return UPath(pattern)
    return base_folder / pattern.removeprefix("./")


def _split(path: UPath) -> tuple[UPath, str]:
    """The folder above the first part that globs, and the pattern below it."""
    folder, below = path, list[str]()
    while _GLOB.search(str(folder)):
        below.insert(0, folder.name)
        folder = folder.parent
    return folder, "/".join(below)


def _none_found(pattern: str, base_folder: UPath) -> str:
    path = _under(base_folder, pattern)
    folder = _split(path)[0] if _GLOB.search(pattern) else path.parent
    if not folder.is_dir():
        while not folder.is_dir() and folder != folder.parent:
            folder = folder.parent
        return (
            f"no file {pattern!r}: its folder does not exist; the nearest that does is {folder} "
            f"({_contents(folder)}). Correct `path`, or put the files there"
        )
    return (
        f"no file {pattern!r} in {folder}{_nearest(path.name, folder)} ({_contents(folder)}). "
        "Correct `path`, or put the files there"
    )


def _nearest(name: str, folder: UPath) -> str:
    near = get_close_matches(_GLOB.sub("", name), [entry.name for entry in folder.iterdir()])
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def _contents(folder: UPath, most: int = 5) -> str:
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    if not names:
        return "it is empty"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"it holds {', '.join(names[:most])}{more}"
