"""The effects: every step after which a run that dies leaves the world other than it was.

A file comes into place, a row is committed, a call is sent. Each has a name, and the one line
``with effect("batch planned"):`` at its call site marks two points: *before* it, and *after* it
(which an effect that raises never reaches). The tests kill a run at each point of each name and
prove that the next run ends where an undisturbed one does; that the call sites and this list agree
is a test too.

Off, as it always is outside of a test, a point costs one look at a global. There is no setting and
no environment variable that turns it on: :func:`watch` is called by the tests' own processes.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

When = Literal["before", "after"]
Watcher = Callable[[str, When], None]
"""Is told of each point as it is passed, and may end the process or do anything else there."""

EFFECTS: dict[str, str] = {
    # files, whole under a temporary name before, under their own after (files.py)
    "records renamed": "A partition's records are in place.",
    "plan renamed": "A partition's plan (record -> request) is in place.",
    "records kept": "A partition's records are beside their plan, for the next one.",
    "manifest renamed": "The manifest of a batch that is about to be planned is in place.",
    "manifest removed": "The manifest of a batch that another transform came before is gone.",
    "raw results renamed": "The result lines of a batch, as they came, are in place.",
    "answers renamed": "The decoded answers of a batch are in place.",
    "results renamed": "A partition's results are in place.",
    "warehouse renamed": "A copy of the warehouse is in place, and nothing leads to it yet.",
    "file renamed": "Any other file is in place: people's decisions, an export.",
    "result chunk written": "A piece of a batch's result lines is in its temporary file.",
    # the ledger, each a transaction that is committed
    "ledger migrated": "The ledger has the tables of this version.",
    "transform created": "A transform is there, in planning.",
    "transform planning to open": "All records of a transform are planned.",
    "transform planning to superseded": "A transform that was not yet planned gave way to another.",
    "transform open to planning": "Records of a transform are to be planned again.",
    "transform open to done": "A transform's results are all there.",
    "transform open to superseded": "A transform that had been sent gave way to another.",
    "batches awaited": "Whose batches a transform waits for is noted, or that it waits no more.",
    "money reserved": "What a plan may cost is set aside of the budgets, or they refused it.",
    "reservation released": "What was set aside and is in no batch is given back.",
    "lease taken": "A process has a transform's lease.",
    "lease renewed": "The lease ends later.",
    "lease released": "The lease is nobody's.",
    "deletion noted": "That a batch was deleted at the API is noted.",
    "event noted": "An event that changes no status is noted.",
    "batch planned": "A batch is there, its manifest before it.",
    "batch planned to submitting": "A batch is about to be sent: from here on it may exist.",
    "batch planned to dropped": "A batch that was never sent will not be.",
    "batch submitting to submitted": "A batch's id at the API is known.",
    "batch submitting to planned": "A batch was refused, or never arrived, and may be sent again.",
    "batch submitting to dropped": "A batch never arrived, and will not be sent again.",
    "batch submitting to lost": "A person decided that a batch which may exist is given up.",
    "batch submitted to collected": "A batch's answers, counts and costs are known.",
    "batch submitted to dropped": "A person decided that a batch that is gone is asked again.",
    "batch submitted to lost": "A person decided that a batch that is gone is given up.",
    # the API
    "create called": "A batch is sent and the reply read.",
    "create's body sent": "The last piece of a batch is on its way; the reply is not read.",
    "cancel called": "The API is asked to stop a batch.",
    "delete called": "The API is asked to delete a batch.",
    "results opened": "The API begins to send a batch's results.",
    # the warehouse
    "warehouse restored": "The working file is there again, as a copy of the published one.",
    "warehouse committed": "A load is in the working file.",
    "warehouse published": "What analysts open is the newest copy.",
}
"""Each effect's name, and what is so once it has happened."""

_OFF = nullcontext()
_watcher: Watcher | None = None


def effect(name: str) -> AbstractContextManager[None]:
    """Marks the body as the effect of this name, which is one of ``EFFECTS``."""
    return _OFF if _watcher is None else _watched(name, _watcher)


@contextmanager
def _watched(name: str, watcher: Watcher) -> Generator[None]:
    watcher(name, "before")
    yield
    watcher(name, "after")


def watch(watcher: Watcher | None) -> None:
    """Have ``watcher`` told of every point of this process from now on; None: of none."""
    global _watcher  # noqa: PLW0603 - one switch a process
    _watcher = watcher
