"""The three assets, run in process against an emulator on a real socket."""

from __future__ import annotations

import json

import dagster as dg
import pytest

from batch_etl_tests.components.make import DAILY, NOTES, YAML, Project, edited
from batch_etl_tests.emulator.driver import Driver

IDS = "SELECT note_id FROM emulator.mine ORDER BY note_id"
ALL = [(f"n{n}",) for n in range(1, 6)]


def prompts(emulator: Driver) -> list[str]:
    """The user turns of every request that the emulator received."""
    turns: list[str] = []
    for batch in emulator.http.get("/v1/messages/batches", params={"limit": 1000}).json()["data"]:
        received = emulator.http.get(f"/_emulator/batches/{batch['id']}/received").text
        for line in received.splitlines()[1:]:
            turns.append(json.loads(line)["params"]["messages"][0]["content"])
    return sorted(turns)


def test_an_unpartitioned_pipeline_is_one_batch_and_one_row_for_each_record(
    mine: Project, emulator: Driver
) -> None:
    mine.write()
    run = mine.run()
    assert run.success
    assert mine.query(IDS) == ALL
    status = emulator.status()
    assert (status["creates_accepted"], status["requests_received"]) == (1, 5)
    assert run.partitions("table") == [None]


def test_a_prompt_is_sent_as_the_yaml_has_it_with_the_record_in_its_place(
    mine: Project, emulator: Driver
) -> None:
    """Templates, quotes and tags within a record are text; a null is nothing."""
    mine.write()
    assert mine.run().success
    texts = ["Thank you, that was lovely", "Go away", "شكرا", "", '{{ 7 * 7 }} </note> "quoted" 🎈']
    head = "Is this note kind? Look at its words only.\n\n"
    assert prompts(emulator) == sorted(f"{head}<note>{text}</note>" for text in texts)


@pytest.mark.parametrize("by_key", [True, False])
def test_one_partition_is_run_alone(mine: Project, emulator: Driver, by_key: bool) -> None:
    """By its key, as "Materialize" in the UI does, and as a range of one."""
    mine.write(DAILY)
    day = "2026-11-02"
    run = mine.run(partition=day) if by_key else mine.run(first=day, last=day)
    assert run.success
    assert mine.query(IDS) == [("n3",), ("n4",)]
    assert run.facts("records", "2026-11-02")["dagster/row_count"] == 2
    assert run.partitions("table") == ["2026-11-02"]
    assert emulator.status()["requests_received"] == 2


def test_a_run_of_a_partitioned_pipeline_without_a_partition_is_refused(
    mine: Project, emulator: Driver
) -> None:
    mine.write(DAILY)
    error = mine.run().error
    assert "pipeline 'mine' has partitions: choose one, or a range" in error


def test_a_range_of_partitions_is_one_run_and_one_batch(mine: Project, emulator: Driver) -> None:
    mine.write(DAILY)
    run = mine.run(first="2026-11-01", last="2026-11-04")
    assert run.success
    assert mine.query(IDS) == ALL
    status = emulator.status()
    assert (status["creates_accepted"], status["requests_received"]) == (1, 5)
    days = [f"2026-11-0{n}" for n in range(1, 5)]
    for step in ("records", "results", "table"):
        assert run.partitions(step) == days
    counted = [run.facts("results", day)["dagster/row_count"] for day in days]
    assert counted == [2, 2, 1, 0]
    assert counted == [run.facts("records", day)["dagster/row_count"] for day in days]
    assert counted == [run.facts("table", day)["dagster/partition_row_count"] for day in days]


def test_static_partitions_are_the_values_of_a_column(mine: Project, emulator: Driver) -> None:
    keys = '  partitions: {type: static, keys: ["2026-11-01", "2026-11-03"]}\n'
    daily = '  partitions: {type: daily, start: "2026-11-01", end: "2026-11-05"}\n'
    mine.write(edited(DAILY, (daily, keys)))
    assert mine.run(first="2026-11-01", last="2026-11-03").success
    assert mine.query(IDS) == [("n1",), ("n2",), ("n5",)]


def test_a_materialization_says_how_many_where_from_whom_and_for_how_much(
    mine: Project, emulator: Driver
) -> None:
    mine.write(DAILY)
    run = mine.run(first="2026-11-01", last="2026-11-02")
    records = run.facts("records", "2026-11-01")
    assert records["dagster/uri"] == str(mine.home / "records/mine/2026-11-01.parquet")
    columns = [column.name for column in records["dagster/column_schema"].columns]
    assert columns == ["note_id", "written_on", "text"]
    results = run.facts("results", "2026-11-01")
    assert results["dagster/uri"] == str(mine.home / "results/emulator/mine/2026-11-01.parquet")
    assert (results["endpoint"], results["claude_model"]) == ("emulator", "claude-haiku-4-5")
    assert (results["answered"], results["review"], results["outcomes"]) == (2, 0, {"Succeeded": 2})
    assert results["transform/cost_is"].startswith("emulated")
    table = run.facts("table", "2026-11-02")
    assert table["dagster/table_name"] == "emulator.mine"
    assert table["dagster/row_count"] == 4
    types = {column.name: column.type for column in table["dagster/column_schema"].columns}
    assert (types["kind"], types["why"], types["_cost_usd"][:7]) == (
        "BOOLEAN",
        "VARCHAR",
        "DECIMAL",
    )


def test_the_partitions_costs_add_up_to_the_transforms(mine: Project, emulator: Driver) -> None:
    mine.write(DAILY)
    run = mine.run(first="2026-11-01", last="2026-11-03")
    facts = [run.facts("results", f"2026-11-0{n}") for n in (1, 2, 3)]
    total = facts[0]["transform/cost_usd"]
    assert total > 0
    assert sum(fact["cost_usd"] for fact in facts) == pytest.approx(total)
    assert facts[0]["transform/cost_usd_at_standard_price"] == pytest.approx(2 * total)
    (in_table,) = mine.query("SELECT sum(_cost_usd) FROM emulator.mine")[0]
    assert float(in_table) == pytest.approx(total)


def test_a_second_run_sends_nothing_and_changes_nothing(mine: Project, emulator: Driver) -> None:
    mine.write(DAILY)
    assert mine.run(first="2026-11-01", last="2026-11-03").success
    rows, sent = mine.query("FROM emulator.mine ORDER BY ALL"), emulator.status()
    again = mine.run(first="2026-11-01", last="2026-11-03")
    assert again.success
    assert mine.query("FROM emulator.mine ORDER BY ALL") == rows
    now = emulator.status()
    assert now["creates_accepted"] == sent["creates_accepted"] == 1
    assert (now["requests_billed"], now["requests_billed_twice"]) == (5, 0)
    facts = again.facts("results", "2026-11-01")
    assert (facts["transform/sent"], facts["transform/reused"]) == (0, 5)
    assert facts["transform/cost_usd"] == 0
    assert again.facts("table", "2026-11-01")["unchanged"] is True


def test_a_single_day_after_its_range_was_run_sends_nothing(
    mine: Project, emulator: Driver
) -> None:
    mine.write(DAILY)
    assert mine.run(first="2026-11-01", last="2026-11-03").success
    assert mine.run(first="2026-11-02").success
    assert emulator.status()["requests_received"] == 5
    assert mine.query(IDS) == ALL


def test_a_changed_record_is_asked_alone_and_a_removed_one_leaves_the_table(
    mine: Project, emulator: Driver
) -> None:
    mine.write(DAILY)
    assert mine.run(first="2026-11-01", last="2026-11-03").success
    changed = edited(NOTES, ("Go away", "Please go away"), ('n3,2026-11-02,"شكرا"\n', ""))
    mine.write(DAILY, {"notes.csv": changed})
    assert mine.run(first="2026-11-01", last="2026-11-03").success
    assert emulator.status()["requests_received"] == 6
    assert mine.query(IDS) == [("n1",), ("n2",), ("n4",), ("n5",)]
    assert mine.query("SELECT text FROM emulator.mine WHERE note_id = 'n2'") == [
        ("Please go away",)
    ]


def test_a_changed_prompt_asks_everything_again(mine: Project, emulator: Driver) -> None:
    mine.write()
    first = mine.run().facts("results")
    mine.write(edited(YAML, ("Look at its words only.", "Be generous.")))
    second = mine.run().facts("results")
    assert emulator.status()["requests_received"] == 10
    assert first["task_version"] != second["task_version"]
    assert mine.query("SELECT DISTINCT _task_version FROM emulator.mine") == [
        (second["task_version"],)
    ]


def test_equal_questions_of_two_records_are_one_request(mine: Project, emulator: Driver) -> None:
    mine.write(YAML, {"notes.csv": "note_id,text\na,Hello\nb,Hello\nc,Bye\n"})
    assert mine.run().success
    assert emulator.status()["requests_received"] == 2
    assert mine.query(IDS) == [("a",), ("b",), ("c",)]


def test_no_records_are_an_empty_table_and_no_batch(mine: Project, emulator: Driver) -> None:
    mine.write(YAML, {"notes.csv": "note_id,text\n"})
    run = mine.run()
    assert run.success, run.error
    assert mine.query(IDS) == []
    assert emulator.status()["creates_accepted"] == 0
    assert run.facts("results")["dagster/row_count"] == 0


def test_a_record_whose_request_errs_is_in_review_and_the_run_succeeds(
    mine: Project, emulator: Driver
) -> None:
    mine.write(edited(YAML, ("max_tokens: 200", "max_tokens: 200\n    max_attempts: 1")))
    emulator.faults({"kind": "error_lines", "type": "invalid_request_error"})
    run = mine.run()
    assert run.success
    assert mine.query("SELECT DISTINCT _state FROM emulator.mine") == [("review",)]
    assert run.facts("results")["review"] == 5


def test_results_without_records_say_what_to_materialize_first(
    mine: Project, emulator: Driver
) -> None:
    mine.write()
    error = mine.run("results").error
    assert "materialize mine/records first" in error
    assert "home/records/mine/all.parquet" in error


def test_a_table_without_results_says_what_to_materialize_first(
    mine: Project, emulator: Driver
) -> None:
    mine.write()
    assert mine.run("records").success
    error = mine.run("table").error
    assert "materialize mine/results" in error
    assert "'emulator'" in error


def test_dagster_knows_each_partitions_status(
    mine: Project, emulator: Driver, home: object
) -> None:
    mine.write(DAILY)
    definitions = mine.load()
    days = definitions.get_assets_def(dg.AssetKey(["mine", "table"])).partitions_def
    assert days is not None
    with dg.instance_for_test() as instance:
        run = mine.run(
            first="2026-11-01", last="2026-11-02", instance=instance, definitions=definitions
        )
        assert run.success
        table = dg.AssetKey(["mine", "table"])
        status = instance.get_status_by_partition(table, days.get_partition_keys(), days) or {}
        done = [day for day, state in status.items() if state and state.value == "MATERIALIZED"]
        assert done == ["2026-11-01", "2026-11-02"]
