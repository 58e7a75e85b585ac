"""How the steps of a run are executed: in the run's own process where they follow each other.

The run of one pipeline is a chain: extract, transform, load. A process for each of its steps, which
is Dagster's default, imports everything three times more (7 s of the processor), needs 200 MB more
while it waits for its batches, and lives on when the run's process is killed. Where steps can run
side by side (a run of several pipelines, each of which may wait for hours), they do, in processes
of their own, by Dagster's default.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from dagster._core.execution.context.system import PlanOrchestrationContext
    from dagster._core.execution.plan.plan import ExecutionPlan
    from dagster._core.execution.retries import RetryMode

_RETRIES: dict[str, Any] = {"retries": {"enabled": {}}}


class _ChainOrProcesses(dg.Executor):
    def __init__(self, chain: dg.Executor, processes: dg.Executor) -> None:
        self._chain = chain
        self._processes = processes

    @property
    def retries(self) -> RetryMode:
        """Enabled, as by default."""
        return self._chain.retries

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[Any]:
        """The run's events."""
        levels = execution_plan.get_steps_to_execute_by_level()
        chosen = self._chain if all(len(steps) < 2 for steps in levels) else self._processes
        return chosen.execute(plan_context, execution_plan)


@dg.executor(
    name="chain_or_processes",
    config_schema={
        "max_concurrent": dg.Field(
            dg.Noneable(int),
            default_value=None,
            description="Steps at once, where they can run side by side; by default as many as"
            " there are processors.",
        )
    },
    requirements=dg.multiple_process_executor_requirements(),
)
def chain_or_processes_executor(init: dg.InitExecutorContext) -> dg.Executor:
    """Steps that follow each other run in the run's process, others in processes of their own."""

    def made(kind: dg.ExecutorDefinition, **config: object) -> dg.Executor:
        context = dg.InitExecutorContext(init.job, kind, {**_RETRIES, **config}, init.instance)
        create = kind.executor_creation_fn
        assert create is not None  # noqa: S101 - both kinds have one
        return create(context)

    return _ChainOrProcesses(
        made(dg.in_process_executor),
        made(dg.multiprocess_executor, max_concurrent=init.executor_config["max_concurrent"]),
    )
