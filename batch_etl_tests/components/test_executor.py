"""In which processes the steps of a run are executed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from batch_etl.components.executor import chain_or_processes_executor


def _asset(name: str, *deps: str) -> dg.AssetsDefinition:
    @dg.asset(name=name, deps=list(deps))
    def made() -> dg.MaterializeResult[Any]:
        return dg.MaterializeResult(metadata={"process": os.getpid()})

    return made


def _job(*assets: dg.AssetsDefinition) -> dg.JobDefinition:
    definitions = dg.Definitions(
        assets=assets,
        jobs=[dg.define_asset_job("all_of_them")],
        executor=chain_or_processes_executor,
    )
    return definitions.resolve_job_def("all_of_them")


def chain() -> dg.JobDefinition:
    return _job(_asset("extracted"), _asset("answered", "extracted"), _asset("loaded", "answered"))


def two_chains() -> dg.JobDefinition:
    return _job(_asset("a"), _asset("b", "a"), _asset("c"), _asset("d", "c"))


def _processes(make: Callable[[], dg.JobDefinition]) -> list[int]:
    """Of all steps, in a run of the job in this process."""
    with dg.instance_for_test() as instance:
        with dg.execute_job(dg.reconstructable(make), instance) as done:
            assert done.success
            events = done.get_asset_materialization_events()
        made = [event.step_materialization_data.materialization for event in events]
        return [int(str(one.metadata["process"].value)) for one in made]


def test_steps_that_follow_each_other_share_the_runs_process() -> None:
    assert _processes(chain) == [os.getpid()] * 3


@pytest.mark.acceptance
def test_steps_that_can_run_side_by_side_have_a_process_each() -> None:
    found = _processes(two_chains)
    assert len({*found, os.getpid()}) == 5
