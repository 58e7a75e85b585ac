"""Profiles: how many requests a batch has, and that it changes nothing else."""

from __future__ import annotations

import pytest

from batch_etl.batches.task import Packing
from batch_etl.components.steps import LOADED
from batch_etl_tests.components.make import YAML, Project, edited
from batch_etl_tests.components.test_checks import with_block
from batch_etl_tests.emulator.driver import Driver

STATED = ("max_tokens: 200", "max_tokens: 200\n    packing: {max_requests: 2}")


@pytest.mark.parametrize(
    ("profile", "max_requests"),
    [("daily", 100_000), ("hourly", 10_000), ("near_real_time", 500)],
)
def test_a_profile_is_a_shortcut_for_the_packing(
    mine: Project, profile: str, max_requests: int
) -> None:
    mine.write(YAML)
    definitions = mine.load()
    plain = LOADED["mine"].task
    mine.write(with_block(YAML, f"profile: {profile}"))
    definitions = mine.load()
    task = LOADED["mine"].task
    assert task.packing == Packing(max_requests=max_requests)
    assert task.fingerprint == plain.fingerprint
    del definitions


def test_a_number_that_is_stated_goes_before_the_profiles(mine: Project, emulator: Driver) -> None:
    mine.write(edited(with_block(YAML, "profile: near_real_time"), STATED))
    assert mine.run().success
    status = emulator.status()
    assert (status["creates_accepted"], status["requests_received"]) == (3, 5)
