"""A pipeline with a queue: the sensor drains, asks once, asks again for what was lost."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from click.testing import CliRunner

from batch_etl.cli import cli
from batch_etl.components import queue as module
from batch_etl.queue import Queue, enqueue
from batch_etl_tests.components.make import YAML, Project, Run, edited
from batch_etl_tests.components.test_deferred import DEFERRED, MONITORING, break_warehouse
from batch_etl_tests.emulator.driver import Driver

QUEUE = edited(
    YAML,
    (
        "    path: notes.csv\n    id: note_id\n",
        "    type: queue\n    id: note_id\n    drain_at: {count: 2, age_s: 3600}\n",
    ),
)
NOTES = [{"note_id": "n1", "text": "Thank you"}, {"note_id": "n2", "text": "Go away"}]


@pytest.fixture
def queued(mine: Project, emulator: Driver) -> Iterator[Queue]:
    """The queue of the pipeline ``mine``."""
    mine.write(QUEUE, files={})
    mine.home.mkdir()
    with closing(Queue(f"sqlite:///{mine.home / 'queue.db'}")) as queue:
        yield queue


def tick(project: Project, instance: dg.DagsterInstance) -> list[str]:
    """The drains that one tick of the sensor asks for."""
    definitions = project.load()
    repository = definitions.get_repository_def()
    context = dg.build_sensor_context(
        instance=instance, repository_def=repository, resources=dict(definitions.resources or {})
    )
    with dg.partition_loading_context(dynamic_partitions_store=instance):  # as the daemon does
        found = repository.get_sensor_def("mine_queue").evaluate_tick(context)
    requests = list(found.run_requests or [])
    assert all(request.run_key is None for request in requests)
    return [request.partition_key or "" for request in requests]


def run(project: Project, instance: dg.DagsterInstance, key: str, *steps: str) -> Run:
    return project.run(*steps, partition=key, instance=instance)


def asked_long_ago(queue: Queue) -> None:
    with queue.begin() as tx:
        tx.exec_driver_sql("UPDATE queue_drains SET asked_at = '2026-01-01 00:00:00.000000'")


def test_a_tick_drains_at_the_count_and_asks_once_for_the_run(
    queued: Queue, mine: Project, instance: dg.DagsterInstance
) -> None:
    enqueue(queued, "mine", NOTES[:1], id="note_id")
    assert tick(mine, instance) == []
    enqueue(queued, "mine", NOTES[1:], id="note_id")
    (key,) = tick(mine, instance)
    assert tick(mine, instance) == []
    done = run(mine, instance, key)
    assert done.success
    assert done.facts("results", key)["answered"] == 2
    rows = mine.query("SELECT note_id, _partition FROM emulator.mine ORDER BY ALL")
    assert rows == [("n1", key), ("n2", key)]
    assert [drain.key for drain in queued.open_drains("mine")] == [key]
    assert tick(mine, instance) == []
    assert queued.open_drains("mine") == []


def test_a_request_that_was_lost_is_made_again(
    queued: Queue, mine: Project, instance: dg.DagsterInstance
) -> None:
    enqueue(queued, "mine", NOTES, id="note_id")
    (key,) = tick(mine, instance)
    asked_long_ago(queued)
    assert tick(mine, instance) == [key]


def test_a_drain_made_by_one_that_died_is_asked_for(
    queued: Queue, mine: Project, instance: dg.DagsterInstance
) -> None:
    enqueue(queued, "mine", NOTES[:1], id="note_id")
    drain = queued.drain("mine")
    assert drain is not None
    assert tick(mine, instance) == [drain.key]
    assert instance.get_dynamic_partitions("mine_drains") == [drain.key]


def test_two_sensors_ask_for_a_drain_once(
    queued: Queue, mine: Project, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    enqueue(queued, "mine", NOTES, id="note_id")
    (tmp_path / "other").mkdir()
    with dg.instance_for_test(temp_dir=str(tmp_path / "other")) as other:
        assert len(tick(mine, instance) + tick(mine, other)) == 1


def record(
    instance: dg.DagsterInstance, key: str, status: dg.DagsterRunStatus, **tags: str
) -> None:
    """A run of the drain that is in this state."""
    instance.create_run_for_job(
        job_def=dg.job(name="mine_job")(lambda: None),
        status=status,
        tags={"dagster/partition": key, **{name.replace("__", "/"): v for name, v in tags.items()}},
    )


S = dg.DagsterRunStatus


@pytest.mark.parametrize(
    ("statuses", "asked"),
    [
        ([S.STARTED], False),
        ([S.STARTING], False),
        ([S.NOT_STARTED], False),
        ([S.CANCELED], False),
        ([S.FAILURE], False),  # a moment ago
        ([S.SUCCESS], True),  # of records alone, say: the table has not got it
    ],
)
def test_whether_a_drain_is_asked_for_again_depends_on_its_runs(
    queued: Queue,
    mine: Project,
    instance: dg.DagsterInstance,
    statuses: list[dg.DagsterRunStatus],
    asked: bool,
) -> None:
    enqueue(queued, "mine", NOTES, id="note_id")
    drain = queued.drain("mine")
    assert drain is not None
    for status in statuses:
        record(instance, drain.key, status)
    assert tick(mine, instance) == ([drain.key] if asked else [])


def test_after_a_failure_the_drain_is_asked_for_once_the_pause_is_over(
    queued: Queue, mine: Project, instance: dg.DagsterInstance, emulator: Driver
) -> None:
    enqueue(queued, "mine", NOTES, id="note_id")
    (key,) = tick(mine, instance)
    asked_long_ago(queued)
    record(instance, key, S.FAILURE)
    assert tick(mine, instance) == []
    (failed,) = instance.get_run_records()
    start = failed.create_timestamp.timestamp()
    drain = queued.open_drains("mine")[0]
    pipeline = mine.load(), module.steps.LOADED["mine"]

    def may_ask(after_s: float) -> bool:
        now = module.dt.datetime.fromtimestamp(start + after_s, module.dt.UTC)
        return module._may_ask(instance, pipeline[1], drain, now)

    assert [may_ask(55), may_ask(65)] == [False, True]
    record(instance, key, S.FAILURE)
    assert [may_ask(65), may_ask(125)] == [False, True]


def waiting(queued: Queue, project: Project, instance: dg.DagsterInstance, emulator: Driver) -> str:
    """The key of a drain whose deferred run has sent its batch, which takes an hour."""
    emulator.pace(end_s=3600)
    enqueue(queued, "mine", NOTES, id="note_id")
    (key,) = tick(project, instance)
    assert run(project, instance, key).success
    return key


def test_a_deferred_drain_is_left_to_the_sensor_of_results(
    queued: Queue, mine: Project, instance: dg.DagsterInstance, emulator: Driver
) -> None:
    mine.write(edited(QUEUE, DEFERRED), files={})
    monitoring = mine.folder / "monitoring"
    monitoring.mkdir()
    (monitoring / "defs.yaml").write_text(MONITORING)
    key = waiting(queued, mine, instance, emulator)
    asked_long_ago(queued)
    assert tick(mine, instance) == []
    emulator.clock(advance_s=4000)
    assert run(mine, instance, key, "results", "table").success
    assert tick(mine, instance) == []
    assert queued.open_drains("mine") == []


def test_a_deferred_drain_whose_table_could_not_be_loaded_is_asked_for_again(
    queued: Queue, mine: Project, instance: dg.DagsterInstance, emulator: Driver
) -> None:
    mine.write(edited(QUEUE, DEFERRED), files={})
    key = waiting(queued, mine, instance, emulator)
    emulator.clock(advance_s=4000)
    working = break_warehouse(mine)
    assert not run(mine, instance, key, "results", "table").success
    asked_long_ago(queued)
    assert tick(mine, instance) == []  # a moment ago
    working.unlink()
    record(instance, key, S.SUCCESS)  # of records alone, say: no pause is needed
    assert tick(mine, instance) == [key]
    assert run(mine, instance, key).success
    assert tick(mine, instance) == []
    assert queued.open_drains("mine") == []
    assert emulator.status()["requests_billed"] == 2


def test_a_deferred_drain_whose_transform_was_cancelled_is_left_to_whoever_did_that(
    queued: Queue, mine: Project, instance: dg.DagsterInstance, emulator: Driver
) -> None:
    mine.write(edited(QUEUE, DEFERRED), files={})
    waiting(queued, mine, instance, emulator)
    invoke("cancel", "mine")
    asked_long_ago(queued)
    assert tick(mine, instance) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("  task:\n", "  schedule: '@daily'\n  task:\n"), "remove `schedule`"),
        (
            ("  task:\n", "  partitions: {type: static, keys: [a]}\n  task:\n"),
            "each drain of a queue is a partition",
        ),
        (("{count: 2, age_s: 3600}", "{}"), "give `count`, `age_s` or both"),
        (("age_s: 3600", "age: 3600"), "unknown key 'age'; did you mean 'age_s'"),
    ],
)
def test_what_a_queue_cannot_be_is_said_when_the_yaml_is_read(
    mine: Project, change: tuple[str, str], says: str
) -> None:
    mine.write(edited(QUEUE, change), files={})
    with pytest.raises(Exception, match="mine") as error:
        mine.load()
    told = [str(error.value)]
    cause: BaseException | None = error.value
    while cause := cause.__cause__ if cause else None:
        told.append(str(cause))
    assert says in "\n".join(told)


# the commands -------------------------------------------------------------------------------------


def invoke(*arguments: str, stdin: str | None = None) -> str:
    done = CliRunner().invoke(cli, list(arguments), input=stdin)
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_the_commands_enqueue_explain_run_and_show(
    tmp_path: Path, home: Path, emulator: Driver
) -> None:
    folder = tmp_path / "defs"
    (folder / "mine").mkdir(parents=True)
    (folder / "mine" / "defs.yaml").write_text(QUEUE)
    defs = ["--defs", str(folder)]
    lines = "".join(json.dumps(note) + "\n" for note in NOTES)
    told = invoke("enqueue", "mine", "-", *defs, stdin=lines)
    assert told == "-: 2 item(s) enqueued\nmine: 2 item(s) wait\n"
    assert "enqueued already at" in invoke("enqueue", "mine", "-", *defs, stdin=lines)

    looked: Mapping[str, Any] = json.loads(invoke("explain", "mine", *defs, "--json"))
    assert (looked["records"], looked["to_send"]) == (2, 2)
    waiting = json.loads(invoke("queue", "mine", "--json"))
    assert (waiting["waiting"], waiting["drains"]) == (2, [])

    report = json.loads(invoke("run", "mine", *defs, "--json"))
    assert (report["records"], report["answered"], report["partitions"]) == (2, 2, 1)
    shown = json.loads(invoke("queue", "mine", "--json"))
    (drain,) = shown["drains"]
    assert (shown["waiting"], drain["items"], drain["loaded_at"] is None) == (0, 2, False)
    assert invoke("run", "mine", *defs) == "mine: nothing waits in its queue\n"
    again = json.loads(invoke("run", "mine", *defs, "--partition", drain["partition"], "--json"))
    assert (again["reused"], again["sent"]) == (2, 0)


def test_a_run_takes_what_an_earlier_one_drained_and_did_not_finish(
    tmp_path: Path, home: Path, emulator: Driver
) -> None:
    folder = tmp_path / "defs"
    (folder / "mine").mkdir(parents=True)
    (folder / "mine" / "defs.yaml").write_text(QUEUE)
    home.mkdir()
    with closing(Queue(f"sqlite:///{home / 'queue.db'}")) as queue:
        enqueue(queue, "mine", NOTES[:1], id="note_id")
        queue.drain("mine")
        time.sleep(0.001)
        enqueue(queue, "mine", NOTES[1:], id="note_id")
    report = json.loads(invoke("run", "mine", "--defs", str(folder), "--json"))
    assert (report["partitions"], report["records"], len(report["run_ids"])) == (2, 2, 1)
    assert json.loads(invoke("queue", "mine", "--json"))["drains"][1]["loaded_at"] is not None
