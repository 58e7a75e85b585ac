"""The ``Evaluation`` component: its YAML, and whole evaluations against an emulator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sklearn.metrics
from click.testing import CliRunner

from batch_etl.cli import cli
from batch_etl_tests.components.make import Project, edited, query
from batch_etl_tests.components.test_yaml_errors import complaint
from batch_etl_tests.emulator.driver import Driver

CASES = """\
case_id,text,expected_kind
c1,This is spam: buy now and click,spam
c2,I love my garden,fine
c3,buy cheap watches now,spam
c4,my tomatoes grow well,fine
c5,buy buy buy click click,spam
c6,the cat sleeps,fine
"""

YAML = """\
type: batch_etl.components.Evaluation
attributes:
  name: judged
  source: {type: files, path: cases.csv, id: case_id}
  task:
    claude_model: claude-haiku-4-5
    max_tokens: 200
    prompt: "<note>{{ text }}</note>"
    output_schema:
      type: object
      required: [kind]
      properties:
        kind:
          type: string
          enum: [fine, spam]
          description: "fine: garden, tomatoes, cat, sleeps; spam: buy, click, cheap, watches"
  variants:
    current: {}
    blind: {prompt: "Guess about note {{ case_id }}"}
  scores:
    - {field: kind, expected: expected_kind}
  gates:
    - {field: kind, at_least: 0.9}
"""


def invoked(project: Project, *options: str) -> Any:
    arguments = ["evaluate", "judged", "--home", str(project.home), "--defs", str(project.folder)]
    return CliRunner().invoke(cli, [*arguments, *options])


def told(project: Project, *options: str) -> tuple[int, dict[str, Any]]:
    result = invoked(project, "--json", *options)
    return result.exit_code, json.loads(result.stdout)


def metric(report: dict[str, Any], variant: str, name: str, field: str = "kind") -> float:
    wanted = (variant, field, name)
    (found,) = [m for m in report["metrics"] if (m["variant"], m["field"], m["metric"]) == wanted]
    return found["value"]


def test_variants_are_scored_compared_and_judged(mine: Project, emulator: Driver) -> None:
    mine.write(YAML, {"cases.csv": CASES})
    code, report = told(mine)
    assert code == 0, report
    cases = query(
        mine.home,
        "SELECT variant, expected->>'$', actual->>'$', correct FROM emulator.judged_cases "
        "ORDER BY variant, record_id",
    )
    assert len(cases) == 12
    for variant in ("current", "blind"):
        expected = [row[1] for row in cases if row[0] == variant]
        given = [row[2] for row in cases if row[0] == variant]
        accuracy = sklearn.metrics.accuracy_score(expected, given)
        f1 = sklearn.metrics.f1_score(expected, given, average="macro")
        assert metric(report, variant, "accuracy") == pytest.approx(accuracy)
        assert metric(report, variant, "f1_macro") == pytest.approx(f1)
    assert metric(report, "current", "accuracy") == 1
    assert metric(report, "blind", "accuracy") < 1
    ((better, p_value),) = query(
        mine.home, "SELECT only_baseline_correct, p_value FROM emulator.judged_comparison"
    )
    wrong = sum(not correct for variant, _, _, correct in cases if variant == "blind")
    assert better == wrong
    assert p_value == pytest.approx(2 * 0.5**wrong)
    assert emulator.status()["requests_received"] == 12


def test_a_second_evaluation_sends_nothing(mine: Project, emulator: Driver) -> None:
    mine.write(YAML, {"cases.csv": CASES})
    assert told(mine)[0] == 0
    assert told(mine)[0] == 0
    assert emulator.status()["requests_received"] == 12


def test_a_prompt_that_got_worse_turns_the_check_red_and_the_command_fails(
    mine: Project, emulator: Driver
) -> None:
    mine.write(YAML, {"cases.csv": CASES})
    assert told(mine)[0] == 0
    worse = edited(YAML, ('"<note>{{ text }}</note>"', '"Judge note {{ case_id }}."'))
    mine.write(worse, {"cases.csv": CASES})
    result = invoked(mine)
    assert result.exit_code == 1
    assert "FAILED  current: accuracy of kind is" in result.stdout
    assert "Error" not in result.stderr
    assert "blocking" not in result.output
    with dg.DagsterInstance.ephemeral() as instance:
        definitions = mine.load()
        keys = [
            dg.AssetKey([f"judged_{variant}", step])
            for variant in ("current", "blind")
            for step in ("records", "results", "table")
        ]
        assets = [*map(definitions.get_assets_def, [*keys, dg.AssetKey(["judged", "scores"])])]
        run = dg.materialize(
            assets,
            instance=instance,
            resources=dict(definitions.resources or {}),
            raise_on_error=False,
        )
        (check,) = [
            one for one in run.get_asset_check_evaluations() if one.asset_key.path[-1] == "scores"
        ]
    assert (check.check_name, check.passed) == ("accuracy_kind_of_current", False)


def test_promoting_a_variant_is_one_line(mine: Project, emulator: Driver) -> None:
    mine.write(edited(YAML, ("  scores:", "  use: blind\n  scores:")), {"cases.csv": CASES})
    code, report = told(mine)
    assert code == 1
    (gate,) = report["gates"]
    assert gate["sentence"].startswith("blind: accuracy of kind is")


def test_approved_answers_are_written_and_changes_counted(mine: Project, emulator: Driver) -> None:
    known = edited(YAML, ("  gates:", "  known_good: good.jsonl\n  max_changed: 0\n  gates:"))
    mine.write(known, {"cases.csv": CASES})
    assert invoked(mine, "--approve").exit_code == 0
    path = mine.folder / "mine" / "good.jsonl"
    assert len(path.read_text().splitlines()) == 6
    assert told(mine)[0] == 0
    path.write_text(edited(path.read_text(), ('"c2", "kind": "fine"', '"c2", "kind": "nice"')))
    code, report = told(mine)
    assert code == 1
    assert "1 correct answer(s) are other than those approved" in str(report["gates"])
    statuses = query(
        mine.home,
        "SELECT record_id, status FROM emulator.judged_cases "
        "WHERE variant = 'current' AND status <> 'pass'",
    )
    assert statuses == [("c2", "changed")]


def test_the_task_of_a_pipeline_in_use_is_put_to_the_test(
    mine: Project, emulator: Driver, tmp_path: Path
) -> None:
    """``task_from`` reads the pipeline's own YAML: what is judged is what runs."""
    pipeline = mine.folder / "kinds"
    pipeline.mkdir()
    task = YAML[YAML.index("  task:") : YAML.index("  variants:")]
    (pipeline / "defs.yaml").write_text(
        "type: batch_etl.components.BatchPipeline\nattributes:\n  name: kinds\n"
        "  source: {type: files, path: ../mine/cases.csv, id: case_id}\n" + task
    )
    text = edited(YAML, (task, "  task_from: ../kinds/defs.yaml\n"))
    mine.write(text, {"cases.csv": CASES})
    code, report = told(mine)
    assert (code, metric(report, "current", "accuracy")) == (0, 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("    blind: {prompt", "    blind: {promt"), "did you mean 'prompt'"),
        (("    - {field: kind, at", "    - {field: knid, at"), "did you mean 'kind'"),
        (("    - {field: kind, at_least: 0.9}", "    - {variant: bld, at_least: 1}"), "'blind'"),
        (("  scores:", "  use: nobody\n  scores:"), "'nobody'"),
        (("  scores:", "  max_changed: 1\n  scores:"), "no `known_good`"),
        (("  scores:", "  task_from: x.yaml\n  scores:"), "either `task` or `task_from`"),
        (("  name: judged", "  name: is-judged"), "letters, digits and underscores"),
    ],
)
def test_a_mistake_in_the_yaml_is_named(mine: Project, change: tuple[str, str], said: str) -> None:
    mine.write(edited(YAML, change), {"cases.csv": CASES})
    assert said in complaint(mine)


def test_an_expected_column_that_is_not_there_is_named(mine: Project, emulator: Driver) -> None:
    mine.write(edited(YAML, ("expected_kind}", "expected_knd}")), {"cases.csv": CASES})
    result = invoked(mine)
    assert result.exit_code == 1
    assert "did you mean 'expected_kind'" in result.stderr


def test_an_unknown_evaluation_is_named(mine: Project, emulator: Driver) -> None:
    mine.write(YAML, {"cases.csv": CASES})
    arguments = ["evaluate", "juged", "--home", str(mine.home), "--defs", str(mine.folder)]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code != 0
    assert "did you mean 'judged'" in str(result.exception) + result.output
