"""The library route: this project installed into another one, used there in YAML and Python."""

from __future__ import annotations

import sys
import sysconfig
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest

from batch_etl_tests.acceptance.processes import ROOT, prerequisite, run, succeed
from batch_etl_tests.components.make import NOTES, YAML, query
from batch_etl_tests.emulator.driver import Driver

pytestmark = pytest.mark.acceptance

PYPROJECT = """\
[project]
name = "scratch"
version = "0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "scratch"
"""
DEFINITIONS = """\
from pathlib import Path
import dagster as dg

@dg.definitions
def defs():
    return dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
BEHIND = """\
import dagster as dg
import pandas as pd
import batch_etl

@dg.asset
def orders() -> pd.DataFrame:
    return pd.DataFrame([{"id": 1, "text": "Thanks"}, {"id": 2, "text": "Go away"}])

@dg.definitions
def behind():
    pipeline = batch_etl.build_batch_pipeline(
        name="behind",
        source={"type": "asset", "asset": orders, "id": "id"},
        task={"claude_model": "claude-haiku-4-5", "max_tokens": 50, "prompt": "{{ text }}"},
    )
    mine = dg.Definitions(assets=[orders], executor=dg.in_process_executor)
    return dg.Definitions.merge(mine, pipeline)
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment: a wheel of this project, and this one's dependencies.

    The .pth file leads to the dependencies without their own .pth files, so an editable install
    of this project is out of reach.
    """
    folder = tmp_path_factory.mktemp("library")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    isolation = ["--no-build-isolation"] if find_spec("hatchling") else []
    built = run(*pip, "wheel", "--no-deps", *isolation, "-w", folder, ROOT, cwd=folder)
    prerequisite(built.returncode == 0, f"hatchling, or a registry to have it from {built.stderr}")
    (wheel,) = folder.glob("batch_etl-*.whl")
    venv.create(folder / "env", with_pip=False, symlinks=True)
    site = next((folder / "env").glob("lib/*/site-packages"))
    succeed(*pip, "install", "--no-deps", "--target", site, wheel, cwd=folder)
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env" / "bin" / "python"


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A dg project that has never heard of batch_etl but in two YAML files."""
    package = tmp_path / "scratch" / "scratch"
    (package / "defs" / "mine").mkdir(parents=True)
    (package / "defs" / "resources").mkdir()
    (tmp_path / "scratch" / "pyproject.toml").write_text(PYPROJECT)
    (package / "__init__.py").touch()
    (package / "definitions.py").write_text(DEFINITIONS)
    (package / "defs" / "__init__.py").touch()
    (package / "defs" / "mine" / "defs.yaml").write_text(YAML)
    (package / "defs" / "mine" / "notes.csv").write_text(NOTES)
    (package / "defs" / "resources" / "defs.yaml").write_text(
        "type: batch_etl.components.Environment\n"
    )
    return tmp_path / "scratch"


def test_a_wheel_brings_the_components_to_another_project(
    installed: Path, scratch: Path, home: Path, emulator: Driver
) -> None:
    where = succeed(installed, "-c", "import batch_etl; print(batch_etl.__file__)", cwd=scratch)
    assert where.startswith(str(installed.parents[1]))
    env = {"VIRTUAL_ENV": str(installed.parents[1])}
    dg = [installed, "-c", "from dagster_dg_cli.cli import main; main()"]
    listed = succeed(*dg, "list", "components", "--json", cwd=scratch, env=env)
    assert "batch_etl.components.BatchPipeline" in listed
    assert "batch_etl.components.Environment" in listed
    component = "batch_etl.components.BatchPipeline"
    succeed(*dg, "scaffold", "defs", component, "made", cwd=scratch, env=env)
    (scratch / "scratch" / "defs" / "behind.py").write_text(BEHIND)
    succeed(*dg, "check", "yaml", cwd=scratch, env=env)
    assets = "group:mine or group:made or key:orders or group:behind"
    succeed(*dg, "launch", "--assets", assets, cwd=scratch, env=env)
    for table, rows in {"mine": 5, "made": 3, "behind": 2}.items():
        assert query(home, f"SELECT count(*) FROM emulator.{table}") == [(rows,)]
