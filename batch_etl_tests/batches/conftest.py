"""Hypothesis without deadlines: the machine may be shared, and no test here measures time."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("engine", deadline=None)
settings.load_profile("engine")
