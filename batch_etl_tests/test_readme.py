"""README.md and docs/ are true: what they name exists, what they show is what comes out.

A ``sh`` block is a list of commands that exist. Where a ``text`` or ``json`` block follows it at
once, that is its output: in the sections "Tutorial" and "Commands" these commands are run for real,
in order, in one folder each. What differs from run to run (ids, times, versions, the folder) is
masked on both sides.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import click
import duckdb
import pydantic
import pytest
import yaml

from batch_etl import environment, files
from batch_etl.batches.attachments import Attachment
from batch_etl.batches.budget import Budget
from batch_etl.batches.conditions import FUNCTIONS, Condition
from batch_etl.batches.label_files import LabelFile
from batch_etl.batches.outcome import BILLED, KINDS
from batch_etl.batches.pricing import PriceOverrides
from batch_etl.batches.retry import Policy, Tried, next_step
from batch_etl.batches.task import Packing, Retry, Task
from batch_etl.batches.turns import Example
from batch_etl.cli import cli
from batch_etl.commands import project
from batch_etl.commands.demo import FIRST_LOOK
from batch_etl.commands.emulator import beside
from batch_etl.components.alerts import Alerts
from batch_etl.components.batch_pipeline import BatchPipeline, Table
from batch_etl.components.checks import Check, Checks
from batch_etl.components.evaluation import Evaluation
from batch_etl.components.freshness import Freshness
from batch_etl.components.monitoring import Monitoring
from batch_etl.components.partitions import Partitions
from batch_etl.components.report import Report
from batch_etl.components.schedules import Schedule
from batch_etl.emulator import control, faults
from batch_etl.emulator.__main__ import parser as emulator_parser
from batch_etl.evaluation import Gate, Score
from batch_etl.sources import (
    AssetSource,
    DuckdbSource,
    FilesSource,
    ForEach,
    HttpSource,
    QueueSource,
    SqlSource,
    TableSource,
)
from batch_etl.sources.documents import DocumentsSource
from batch_etl.sources.http import Auth
from batch_etl.sources.http_paging import Paging
from batch_etl.sources.queue import DrainAt
from batch_etl.warehouse import dictionary, relations
from batch_etl_tests.ready import READY

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
BIN = Path(sys.executable).parent
MODELS: dict[str, type[pydantic.BaseModel]] = {
    "BatchPipeline": BatchPipeline,
    "Evaluation": Evaluation,
    "scores": Score,
    "gates": Gate,
    "Monitoring": Monitoring,
    "alerts": Alerts,
    "report": Report,
    "source": FilesSource,
    "partitions": Partitions,
    "task": Task,
    "labels in a file": LabelFile,
    "for_each": ForEach,
    "attachment": Attachment,
    "example": Example,
    "condition": Condition,
    "retry": Retry,
    "packing": Packing,
    "budget": Budget,
    "table": Table,
    "schedule": Schedule,
    "checks": Checks,
    "every check": Check,
    "freshness": Freshness,
}
SOURCES: dict[str, type[pydantic.BaseModel]] = {
    "## documents": DocumentsSource,
    "## sql": SqlSource,
    "## duckdb": DuckdbSource,
    "## http": HttpSource,
    "### auth": Auth,
    "### paging": Paging,
    "## table": TableSource,
    "## asset": AssetSource,
    "## queue": QueueSource,
    "### drain_at": DrainAt,
}


@dataclass(frozen=True)
class Block:
    """A fenced block: where it stands, the line before it, and the output shown after it."""

    page: str
    section: str
    language: str
    text: str
    introduction: str
    output: str | None

    def __str__(self) -> str:
        return f"{self.page}, {self.section}: {self.text.strip().splitlines()[0]}"


_FENCED = re.compile(r"^```(\w*)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
_OUTPUT = re.compile(r"\s*^```(?:text|json)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def blocks_of(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in _FENCED.finditer(text):
        before = text[: found.start()]
        sections = re.findall(r"^## (.*)$", before, re.MULTILINE) or [""]
        output = _OUTPUT.match(text, found.end())
        lines = before.rstrip().splitlines()
        yield Block(
            page.name,
            sections[-1],
            found[1],
            found[2],
            lines[-1] if lines else "",
            output[1] if output else None,
        )


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def in_language(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


def table_under(page: Path, heading: str) -> list[list[str]]:
    """The cells of the first table at or after a line that begins so, without the table's head."""
    text = page.read_text("utf-8")
    found = re.search(rf"^{re.escape(heading)}", text, re.MULTILINE)
    rows = found and re.compile(r"(^\|.*\n)+", re.MULTILINE).search(text, found.start())
    assert rows, f"no table at {heading!r} in {page.name}"
    lines = rows[0].strip().splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


# What is named exists -----------------------------------------------------------------------------

QUERIES = [
    block
    for page in PAGES
    if page.parent.name != "pipelines"  # their queries need the demo of all: test_pipeline_pages
    for block in blocks_of(page)
    if block.language == "sql"
]
SHELL = [
    pytest.param(line, id=line)
    for block in in_language("sh")
    for line in block.text.strip().splitlines()
]


@pytest.mark.parametrize("line", SHELL)
def test_every_command_shown_exists(line: str) -> None:
    words = shlex.split(line)
    if words[0] == "export":
        words = words[1:]
    while words and re.match(r"[A-Z_]+=", words[0]):
        assert words.pop(0).partition("=")[0] in environment.SETTINGS
    if words:
        check_command(words)


def check_command(words: list[str]) -> None:
    program, rest = words[0], words[1:]
    if program == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in rest)
    elif program == "batch-etl":
        check_batch_etl(rest)
    else:
        assert program in (".", "dg", "curl"), f"unknown program {program}"


def check_batch_etl(words: list[str]) -> None:
    if words[0] == "emulator":
        emulator_parser().parse_args(["--state", "x", *words[1:]])
        return
    command = cli.commands[words[0]]
    if isinstance(command, click.Group):
        command, words = command.commands[words[1]], words[1:]
    context = command.make_context(words[0], [], resilient_parsing=True)
    options, left_over, _ = command.make_parser(context).parse_args(words[1:])
    assert not left_over
    if words[0] == "run":
        assert options["pipeline"] in [*READY, "reviews", "reviews_by_day"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_in_the_text_exists(page: Path) -> None:
    known = {option for command in cli.commands.values() for option in options_of(command)}
    known |= set(emulator_parser()._option_string_actions) | {"--help"}
    for span in re.findall(r"`([^`\n]+)`", _FENCED.sub("", page.read_text("utf-8"))):
        words = span.split()
        if words[0] == "make":
            check_command(words)
        if words[0] == "batch-etl" and len(words) > 1:
            assert words[1] in cli.commands or words[1].isupper() or words[1].startswith("-"), span
        for word in words:
            assert not re.match(r"--[a-z]", word) or word in known, span


def options_of(command: Any) -> list[str]:
    parts = command.commands.values() if isinstance(command, click.Group) else [command]
    options = [one for part in parts for one in part.params]
    return [name for one in options for name in (*one.opts, *one.secondary_opts) if "--" in name]


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_the_readme_tells_of_every_command_and_option(name: str) -> None:
    text = README.read_text("utf-8").split("## Commands")[1]
    assert f"`batch-etl {name}" in text
    for option in options_of(cli.commands[name]):
        assert option in README.read_text("utf-8"), f"{name} {option}"


def test_the_settings_are_those_that_are_read() -> None:
    rows = {code(row[0])[0]: row[1] for row in table_under(README, "## Settings")}
    assert list(rows) == list(environment.SETTINGS)
    for name, meaning in environment.SETTINGS.items():
        assert set(code(meaning)) <= set(code(rows[name])), name


def test_the_readme_names_every_ready_pipeline() -> None:
    assert all(f"`{name}`" in README.read_text("utf-8") for name in READY)


def test_the_tree_of_state_is_that_of_the_code() -> None:
    tree = next(block.text for block in in_language("text") if block.text.startswith("data/\n"))
    paths = re.compile(r"^ +([a-z].*?) {2,}", re.MULTILINE)
    promised = (files.__doc__ or "").split("<home>/\n")[1].split("\n\n")[0]
    assert paths.findall(tree) == paths.findall(promised)


def test_the_outcomes_are_those_of_the_engine() -> None:
    rows = table_under(README, "| outcome")
    policy = Policy.of(Task(claude_model="claude-haiku-4-5", max_tokens=1, prompt="Hello"))
    stops = {"Truncated": "max_tokens"}

    def again(kind: str) -> bool:
        return (
            next_step(policy, Tried(1, kind, stop_reason=stops.get(kind, "end_turn"))) is not None
        )

    told = {
        kind: (row[2] == "yes", not row[3].startswith("|"))  # an empty cell
        for row in rows
        for kind in re.findall(r"[A-Z][a-z]+", row[0].split(":")[0].replace("API", ""))
    }
    true = {kind: (kind in BILLED, again(kind)) for kind in KINDS}
    assert told == true


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
            if "://" in target:  # another site's, which may not be reached from here
                continue
            path, _, anchor = target.partition("#")
            linked = page.parent / path if path else page
            assert linked.exists(), target
            if linked.suffix == ".png":
                continue
            headings = re.findall(r"^#+ (.*)$", linked.read_text("utf-8"), re.MULTILINE)
            assert not anchor or anchor in [h.lower().replace(" ", "-") for h in headings], target


def source_text() -> str:
    """The package's code with the pieces of each message joined."""
    code = "\n".join(path.read_text("utf-8") for path in (ROOT / "batch_etl").rglob("*.py"))
    return re.sub(r'"\s*\n\s*f?"', "", code)


def test_the_messages_to_look_up_are_those_of_the_code() -> None:
    known = source_text()
    for message, _ in table_under(README, "| message"):
        pieces = re.split(r"\.\.\.|'[^']*'|[()]|\b[\d.:]+\b|Connection refused", code(message)[0])
        for piece in (piece.strip() for piece in pieces):
            assert len(piece) < 8 or piece in known, piece


# The YAML -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("heading", MODELS)
def test_the_keys_are_those_of_the_models(heading: str) -> None:
    check_keys(table_under(ROOT / "docs" / "reference.md", f"### {heading}\n"), MODELS[heading])


@pytest.mark.parametrize("heading", SOURCES)
def test_the_keys_of_each_source_are_those_of_its_model(heading: str) -> None:
    check_keys(table_under(ROOT / "docs" / "sources.md", f"{heading}\n"), SOURCES[heading])


def check_keys(rows: list[list[str]], model: type[pydantic.BaseModel]) -> None:
    told = {code(key)[0]: default for key, default, _ in rows}
    fields = model.model_fields
    assert list(told) == list(fields)
    for name, field in fields.items():
        assert (told[name] == "required") == field.is_required(), name
        if told[name].startswith("`") and told[name].endswith("`"):
            default = field.get_default(call_default_factory=True)
            shown = json.dumps(default) if isinstance(default, bool) else str(default)
            assert told[name] == f"`{shown.replace('()', '[]')}`", name


def test_the_functions_of_conditions_are_those_of_the_code() -> None:
    rows = table_under(ROOT / "docs" / "reference.md", "| function |")
    assert [code(row[0])[0].partition("(")[0] for row in rows] == list(FUNCTIONS)


def pipeline_of(text: str) -> dict[str, Any]:
    """A whole file as it is; a fragment in the place of the tutorial's keys of the same names."""
    loaded = yaml.safe_load(text)
    if "type" in loaded:
        return loaded
    whole = yaml.safe_load(next(block.text for block in in_language("yaml")))
    return {**whole, "attributes": {**whole["attributes"], **loaded}}


@pytest.mark.parametrize("block", in_language("yaml"), ids=str)
def test_every_yaml_block_loads(block: Block, tmp_path: Path) -> None:
    if isinstance(yaml.safe_load(block.text), list):
        assert PriceOverrides.load(yaml.safe_load(block.text), str(block)).entries
        return
    folder = tmp_path / "defs" / "one"
    folder.mkdir(parents=True)
    (folder / "defs.yaml").write_text(yaml.safe_dump(pipeline_of(block.text), sort_keys=False))
    loaded = project.definitions(tmp_path / "defs")
    assert set(loaded.resources or {}) == {"storage", "ledger", "endpoint", "warehouse", "queue"}


def test_the_tutorials_pipeline_is_about_twenty_lines() -> None:
    assert len(next(block.text for block in in_language("yaml")).splitlines()) <= 20


# The emulator -------------------------------------------------------------------------------------


def test_the_emulators_options_are_those_of_its_parser() -> None:
    rows = table_under(ROOT / "docs" / "emulator.md", "## Options")
    actions = {
        option: action.default
        for option, action in emulator_parser()._option_string_actions.items()
        if option.startswith("--") and option != "--help"
    }
    assert {option for row in rows for option in code(row[0])} == set(actions)
    for row in rows:
        default = actions[code(row[0])[0]]
        assert default in (None, 0) or row[1] == f"`{default}`", row


def test_the_kinds_of_faults_are_those_of_the_plan() -> None:
    page = ROOT / "docs" / "emulator.md"
    headings = ("Of calls", "Of batches", "Of lines")
    told = [code(row[0])[0] for heading in headings for row in table_under(page, heading)]
    kinds = [kind.__struct_config__.tag for kind in get_args(faults.AnyFault)]
    assert sorted(told) == sorted(kinds)


def test_the_control_plane_is_all_told() -> None:
    rows = table_under(ROOT / "docs" / "emulator.md", "## Control plane")
    told = {code(row[0])[0].split()[1].replace("ID", "{batch_id}") for row in rows}
    assert told == {route.path for route in control.routes()}


# For real -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """An environment without settings; if somebody's emulator has the default port, one of ours."""
    foreign = {*environment.SETTINGS, project.DEFS_FOLDER, "DAGSTER_HOME", "COLUMNS"}
    clean = {name: value for name, value in os.environ.items() if name not in foreign}
    clean["PATH"] = f"{BIN}{os.pathsep}{clean.get('PATH', '')}"
    with ExitStack() as stack:
        with socket.socket() as probe:
            address = urlsplit(environment.EMULATOR_URL)
            taken = probe.connect_ex((address.hostname, address.port)) == 0
        if taken:
            pace = ("--pace", "1", "--retry-after-s", "1")
            ours = beside(tmp_path_factory.mktemp("emulator"), pace=pace)
            clean["BATCH_ETL_EMULATOR_URL"] = stack.enter_context(ours)
        yield clean


def shell(command: str, folder: Path, environ: dict[str, str]) -> str:
    """What the command prints, with the folder named as in the README."""
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        check=False,
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.replace(str(folder), f"/home/you/{folder.name}")


_MASKS = {
    r"http://127.0.0.1:\d+": "URL",
    r"\d{8}T\d{6}-[0-9a-f]{8}": "TRANSFORM",
    r"msgbatch_\w+": "BATCH",
    r"[0-9a-f]{8}-[0-9a-f-]{27}": "RUN",
    r"\d+(\.\d+){2,}": "VERSION",
    r"[\d.]+ (GB|MB|ms)": "SIZE",
    r"[\d,]+ bytes": "SIZE",  # a time has as many digits as it needs
    r"(..  reachable): .*": "REACHABLE",
}


def masked(text: str) -> str:
    for pattern, name in _MASKS.items():
        text = re.sub(pattern, name, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def cells(box: str) -> list[list[str]]:
    """The cells of DuckDB's drawing of a table: names, types, values."""
    lines = [line for line in box.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, environ: dict[str, str]) -> Path:
    """A folder in which the demo was run: its state is in ``data``, as in a checkout."""
    folder = tmp_path_factory.mktemp("checkout") / "batch_etl"
    folder.mkdir()
    told = shell("batch-etl demo", folder, environ)
    assert "The tables are in data/warehouse.duckdb" in told
    return folder


@pytest.mark.acceptance
def test_the_demo_has_one_row_for_each_record(demo: Path) -> None:
    with duckdb.connect(str(demo / "data" / "warehouse.duckdb"), read_only=True) as warehouse:
        tables = [warehouse.sql(f"SELECT 1 FROM emulator.{name}") for name in FIRST_LOOK]
        rows = [len(table.fetchall()) for table in tables]
    said = re.search(r"(\d+) records in two tables", README.read_text("utf-8"))
    assert said
    assert int(said[1]) == sum(rows)


@pytest.mark.acceptance
@pytest.mark.parametrize("block", QUERIES, ids=str)
def test_every_query_gives_what_is_shown(block: Block, demo: Path) -> None:
    with duckdb.connect(str(demo / "data" / "warehouse.duckdb"), read_only=True) as warehouse:
        assert cells(str(warehouse.sql(block.text))) == cells(block.output or "")


@pytest.mark.acceptance
@pytest.mark.parametrize("block", in_language("python"), ids=str)
def test_every_python_block_prints_what_is_shown(
    block: Block, demo: Path, environ: dict[str, str]
) -> None:
    script = demo / "block.py"
    script.write_text(block.text, encoding="utf-8")
    told = shell(f"{shlex.quote(sys.executable)} block.py", demo, environ)
    assert cells(told) == cells(block.output or "")


@pytest.mark.acceptance
def test_the_lineage_columns_have_the_types_in_the_reference(demo: Path) -> None:
    rows = table_under(ROOT / "docs" / "reference.md", "| lineage column")
    with duckdb.connect(str(demo / "data" / "warehouse.duckdb"), read_only=True) as warehouse:
        described = warehouse.sql(f"DESCRIBE emulator.{FIRST_LOOK[0]}").fetchall()
    assert [(code(name)[0], kind) for name, kind in rows] == [
        (name, kind) for name, kind, *_ in described if name.startswith("_")
    ]


@pytest.mark.acceptance
def test_the_data_dictionary_is_that_of_the_demos_tables(demo: Path) -> None:
    with duckdb.connect(str(demo / "data" / "warehouse.duckdb"), read_only=True) as connection:
        made = dictionary(relations(connection))
    assert made == (ROOT / "docs" / "data-dictionary.md").read_text("utf-8")


def test_the_commands_print_what_is_shown(demo: Path, environ: dict[str, str]) -> None:
    for block in in_language("sh"):
        if block.section == "Commands" and block.output is not None:
            check_output(block, shell(block.text, demo, environ))


def check_output(block: Block, told: str) -> None:
    if block.output and block.output.startswith("{"):
        changing = {"run_ids"}
        shown, true = json.loads(block.output), json.loads(told)
        assert list(shown) == list(true)
        assert {k: v for k, v in shown.items() if k not in changing} == {
            k: v for k, v in true.items() if k not in changing
        }
    else:
        assert masked(told) == masked(block.output or "")


@pytest.mark.acceptance
def test_the_tutorial_does_what_it_says(tmp_path: Path, environ: dict[str, str]) -> None:
    folder = tmp_path / "try"
    written: Path | None = None
    for block in [b for b in BLOCKS if b.section.startswith("Tutorial")]:
        named = re.search(r"`(my_pipelines/[^`]+)`:$", block.introduction)
        if named:
            path = written = folder / str(named[1])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.language == "yaml" and "type" not in yaml.safe_load(block.text):
            assert written is not None
            written.write_text(
                yaml.safe_dump(pipeline_of(block.text), sort_keys=False), encoding="utf-8"
            )
        elif block.language == "sh" and block.output is not None:
            assert masked(shell(block.text, folder, environ)) == masked(block.output)


_PROJECT = """
[project]
name = "shop"
version = "1"
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "shop"
"""

_DEFINITIONS = """
from pathlib import Path
import dagster as dg
@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""


@pytest.mark.acceptance
def test_another_project_uses_the_components(tmp_path: Path, environ: dict[str, str]) -> None:
    package = tmp_path / "src" / "shop"
    for name, block in zip(("reviews", "environment"), _whole_files(), strict=True):
        (package / "defs" / name).mkdir(parents=True)
        (package / "defs" / name / "defs.yaml").write_text(block.text, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text(_PROJECT)
    (package / "__init__.py").touch()
    (package / "definitions.py").write_text(_DEFINITIONS)
    told = shell("dg list defs --json", tmp_path, {**environ, "PYTHONPATH": "src"})
    assert all(f"reviews/{step}" in told for step in ("records", "results", "table"))
    assert all(f'"{name}"' in told for name in ("storage", "ledger", "endpoint", "warehouse"))


def _whole_files() -> list[Block]:
    tutorial = [block for block in in_language("yaml") if block.section.startswith("Tutorial")]
    return [block for block in tutorial if "type" in yaml.safe_load(block.text)]
