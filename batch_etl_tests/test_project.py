"""The project's own files: what make, Dagster and pip are told, and what lies in the repository."""

from __future__ import annotations

import importlib
import re
import subprocess
import tomllib
import unicodedata
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance, Definitions
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import batch_etl
from batch_etl import definitions, environment
from batch_etl.commands import project
from batch_etl_tests.conftest import prerequisite

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))

TOP_LEVEL = {
    *("pyproject.toml", "batch_etl", "batch_etl_tests", "workspace.yaml", "dagster.yaml", "data"),
    *("README.md", "Makefile", "constraints.txt", "LICENSE", "docs", "Dockerfile"),
    *(".ci", ".gitignore", ".gitattributes"),
}

RECORDS = "/records/"
"""Sample records may hold any character: they are hostile on purpose."""

PICTURES = (".png",)


def tracked() -> list[str]:
    """Files that are in the repository, or will be with the next commit."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    prerequisite((ROOT / ".git").exists(), "a git checkout")
    told = subprocess.run(listing, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [name for name in told.split("\0") if name and (ROOT / name).is_file()]


def texts() -> list[tuple[str, str]]:
    names = [name for name in tracked() if RECORDS not in name and not name.endswith(PICTURES)]
    return [(name, (ROOT / name).read_text("utf-8")) for name in names]


# make, pip ----------------------------------------------------------------------------------------

MAKEFILE = (ROOT / "Makefile").read_text("utf-8")


def test_every_make_target_says_what_it_does_and_is_no_file() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    described = set(re.findall(r"^([a-z-]+):.*## \w", MAKEFILE, re.MULTILINE))
    phony = set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].split())
    assert targets == described == phony
    assert {"setup", "demo", "dev", "test", "check", "help"} <= targets


def test_ci_runs_the_commands_of_the_readme() -> None:
    told = re.findall(r"^make (\w+)$", (ROOT / ".ci" / "run").read_text("utf-8"), re.MULTILINE)
    assert set(told) >= {"check", "test"}
    assert all(re.search(rf"^{target}:", MAKEFILE, re.MULTILINE) for target in told)


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    stated = [line for line in lines if line and not line.startswith("#")]
    for line in stated:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line), line
    return {canonicalize_name(name): pin for name, pin in (line.split("==") for line in stated)}


def installed_by_make() -> list[Requirement]:
    extra = PYPROJECT["project"]["optional-dependencies"]["dev"]
    return [Requirement(line) for line in [*PYPROJECT["project"]["dependencies"], *extra]]


def test_constraints_pin_what_make_installs_to_versions_that_are_allowed() -> None:
    pinned = pins()
    for requirement in installed_by_make():
        pin = pinned[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin, prereleases=True), requirement


def test_what_is_installed_is_what_is_pinned() -> None:
    pinned = pins()
    for requirement in installed_by_make():
        assert version(requirement.name) == pinned[canonicalize_name(requirement.name)]


@pytest.mark.parametrize("name", ["constraints.txt", "pyproject.toml", "Makefile", ".ci/run"])
def test_packages_come_from_wherever_pip_is_told_and_nowhere_else(name: str) -> None:
    text = (ROOT / name).read_text("utf-8")
    assert not re.search(r"https?://|index-url|find-links|trusted-host", text)


def test_the_version_is_the_same_everywhere() -> None:
    assert version("batch-etl") == batch_etl.__version__
    assert f"version {batch_etl.__version__}" in (ROOT / "README.md").read_text("utf-8")


def test_the_licence_is_the_one_that_is_named() -> None:
    assert PYPROJECT["project"]["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")


# Dagster ------------------------------------------------------------------------------------------


def test_workspace_and_tools_name_one_entry_that_exists() -> None:
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text("utf-8"))
    (location,) = workspace["load_from"]
    entry = location["python_module"]["module_name"]
    assert entry == PYPROJECT["tool"]["dagster"]["module_name"]
    assert callable(importlib.import_module(entry).defs)
    assert PYPROJECT["tool"]["dg"]["project"]["root_module"] == entry.partition(".")[0]


def test_all_that_is_ready_loads_in_one_location() -> None:
    """Jobs and sensors too: pipelines that are cut in different ways stand side by side."""
    Definitions.validate_loadable(definitions.defs())


def test_all_that_dagster_stores_lies_below_data() -> None:
    config = yaml.safe_load((ROOT / "dagster.yaml").read_text("utf-8"))
    folders = [
        config["storage"]["sqlite"]["base_dir"],
        config["local_artifact_storage"]["config"]["base_dir"],
        config["compute_logs"]["config"]["base_dir"],
    ]
    assert all(Path(folder).parts[:2] == ("data", "dagster") for folder in folders)
    assert config["telemetry"] == {"enabled": False}


def test_dagster_takes_its_configuration(home: Path) -> None:
    folder = project.dagster_home(environment.read())
    assert folder.is_relative_to(home)
    with DagsterInstance.from_config(str(folder)) as instance:
        assert Path(instance.root_directory).is_relative_to(home)


# The repository -----------------------------------------------------------------------------------


def test_the_top_level_holds_only_what_belongs_there() -> None:
    assert {name.partition("/")[0] for name in tracked()} <= TOP_LEVEL


def test_no_state_is_in_the_repository() -> None:
    assert {name for name in tracked() if name.startswith("data/")} <= {"data/.gitkeep"}


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    places = r"(?<![\w.])/(?:work|root|mnt|Users)/|/home/(?!you/)|\.\./" + "shared"
    found = {
        name: hit[0]
        for name, text in texts()
        if name != "batch_etl_tests/test_project.py" and (hit := re.search(places, text))
    }
    assert found == {}


def test_no_key_is_in_the_repository_but_those_that_tests_made_up() -> None:
    secret = re.compile(r"sk-ant-[a-z]+\d\d-[\w-]{20,}|BEGIN [A-Z ]*PRIVATE KEY")
    found = {name for name, text in texts() if secret.search(text)}
    assert {name for name in found if not name.startswith("batch_etl_tests/")} == set()


def test_no_word_mixes_letters_that_look_alike() -> None:
    mixed = {
        (name, word)
        for name, text in texts()
        for word in re.findall(r"[^\W\d_]+", text)
        if not word.isascii() and len({script_of(letter) for letter in word} & LOOK_ALIKE) > 1
    }
    assert mixed == set()


LOOK_ALIKE = {"LATIN", "CYRILLIC", "GREEK"}


def script_of(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


def test_no_character_of_the_package_and_its_pages_is_invisible() -> None:
    hidden = {
        (name, f"U+{ord(character):04X}")
        for name, text in texts()
        if not name.startswith("batch_etl_tests/")
        for character in text
        if unicodedata.category(character) in ("Cf", "Cc", "Co") and character not in "\n\t"
    }
    assert hidden == set()
