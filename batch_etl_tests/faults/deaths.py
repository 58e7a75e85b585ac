"""Watchers of the effects: one that ends its process at a point, one that only keeps count."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from batch_etl.effects import When, watch

Phase = Literal["first", "retry"]
"""``retry``: from the planning of a transform's second attempt on."""

Point = tuple[str, When]


@dataclass
class Phases:
    """Tells in which phase a run is, from the points that it passes.

    All records are planned before any request is asked again, so a manifest that is written after
    that is a later attempt's.
    """

    phase: Phase = "first"
    _planned: bool = False

    def pass_(self, name: str, when: When) -> Phase:
        if (name, when) == ("transform planning to open", "after"):
            self._planned = True
        if self._planned and name == "manifest renamed":
            self.phase = "retry"
        return self.phase


@dataclass
class Death:
    """Ends its process by SIGKILL at the ``nth`` passing of a point in a phase."""

    name: str
    when: When
    phase: Phase = "first"
    nth: int = 1
    _phases: Phases = field(default_factory=Phases)
    _passed: int = 0

    def __call__(self, name: str, when: When) -> None:
        phase = self._phases.pass_(name, when)
        if (name, when, phase) == (self.name, self.when, self.phase):
            self._passed += 1
            if self._passed == self.nth:
                os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Count:
    """How often each point was passed in each phase."""

    passed: Counter[tuple[str, When, Phase]] = field(default_factory=Counter)
    _phases: Phases = field(default_factory=Phases)

    def __call__(self, name: str, when: When) -> None:
        self.passed[name, when, self._phases.pass_(name, when)] += 1


@dataclass
class Between:
    """Does something once, when a point is passed for the first time; nobody watches that."""

    name: str
    when: When
    act: Callable[[], None]
    then: Death | Count | None = None
    """Who else watches."""
    _done: bool = False

    def __call__(self, name: str, when: When) -> None:
        if self.then is not None:
            self.then(name, when)
        if not self._done and (name, when) == (self.name, self.when):
            self._done = True
            watch(None)
            self.act()
            watch(self)
