"""The statuses of a transform and of a batch, and which may follow which.

A batch::

    planned ──> submitting ──> submitted ──> collected
       │             │  │           │
       │             │  └─> planned │        (a definite refusal: nothing was accepted)
       └─> dropped <─┴──────────────┴─> lost

``submitting`` is committed before the create call is sent: a row that is still so when its holder
is gone may or may not be a batch at the API, and is looked up there before anything is sent again.
A batch that the API no longer has, or whose results it no longer keeps, stays as it is until a
person decides: ``dropped``, its requests are planned again; or ``lost``, they are Missing.

A transform::

    planning ──> open ──> done
        └──────────┴────> superseded   (its task changed; its batches were cancelled)
"""

from __future__ import annotations

from typing import Literal

from batch_etl.batches.errors import LedgerError

TransformStatus = Literal["planning", "open", "done", "superseded"]
BatchStatus = Literal["planned", "submitting", "submitted", "collected", "dropped", "lost"]

TRANSFORM_MOVES: dict[str, frozenset[str]] = {
    "planning": frozenset({"open", "superseded"}),
    "open": frozenset({"planning", "done", "superseded"}),
    "done": frozenset(),
    "superseded": frozenset(),
}

BATCH_MOVES: dict[str, frozenset[str]] = {
    "planned": frozenset({"submitting", "dropped"}),
    "submitting": frozenset({"submitted", "planned", "dropped", "lost"}),
    "submitted": frozenset({"collected", "dropped", "lost"}),
    "collected": frozenset(),
    "dropped": frozenset(),
    "lost": frozenset(),
}

OPEN_BATCH: frozenset[str] = frozenset({"planned", "submitting", "submitted"})
"""Statuses in which a batch may still bring answers."""


def check_move(moves: dict[str, frozenset[str]], before: str, after: str) -> None:
    """Raise ``LedgerError`` unless ``after`` may follow ``before``."""
    if after not in moves[before]:
        allowed = ", ".join(sorted(moves[before])) or "nothing: it is final"
        raise LedgerError(f"{before} cannot become {after}; after {before} comes {allowed}")
