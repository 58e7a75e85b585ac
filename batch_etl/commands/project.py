"""Which definitions a command works on, and the Dagster instance that remembers its runs."""

from __future__ import annotations

import os
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batch_etl import environment, memory
from batch_etl.errors import ConfigError
from batch_etl.strict import did_you_mean

if TYPE_CHECKING:
    import dagster as dg

    from batch_etl.batches.ledger import Ledger

DEFS_FOLDER = "BATCH_ETL_DEFS"
"""How ``batch-etl dev --defs`` tells Dagster's processes of the folder."""

_READY = Path(__file__).parents[1] / "defs"
"""The pipelines that come with this package."""


def settings_at(home: Path | None) -> environment.Settings:
    """The settings, after ``--home`` was put into the environment for child processes too."""
    if home is not None:
        os.environ["BATCH_ETL_HOME"] = str(home.absolute())
    return environment.read()


def definitions(folder: Path | None) -> dg.Definitions:
    """The ready pipelines, or those of a folder with YAML files, with resources in any case.

    Without what Dagster's UI tells of the kinds of components, which is a second's work.
    Raises ``ConfigError`` with the reason and the file when the YAML cannot be used.
    """
    import dagster as dg
    import yaml
    from dagster.components.core.component_tree import ComponentTreeException

    for category in (dg.BetaWarning, dg.PreviewWarning, dg.SupersessionWarning):
        warnings.filterwarnings("ignore", category=category)  # Dagster's talk with its developers
    try:
        with memory.uncollected():
            return _complete(_of_folder((folder or _READY).absolute()))
    except (dg.DagsterError, ComponentTreeException, yaml.YAMLError, ValueError) as error:
        raise ConfigError(_root_cause(error)) from error


def _complete(loaded: dg.Definitions) -> dg.Definitions:
    """The same definitions with what they lack (resources, an executor); resolved once, to find
    all errors.
    """
    import dagster as dg

    from batch_etl.components.executor import chain_or_processes_executor
    from batch_etl.resources import from_settings

    resources = {**from_settings(environment.read()), **(loaded.resources or {})}
    whole = dg.Definitions.merge(
        dg.Definitions(assets=loaded.assets, asset_checks=loaded.asset_checks, jobs=loaded.jobs),
        dg.Definitions(
            schedules=loaded.schedules,
            sensors=loaded.sensors,
            resources=resources,
            executor=loaded.executor or chain_or_processes_executor,
        ),
    )
    dg.Definitions.validate_loadable(whole)
    return whole


def _of_folder(folder: Path) -> dg.Definitions:
    """A folder of component YAML, loaded as if it were the ``defs`` folder of a project."""
    from dagster.components.core.component_tree import ComponentTree

    if not any(folder.rglob("defs.yaml")):
        raise ConfigError(
            f"{folder} holds no defs.yaml; put each pipeline into a folder of its own with a "
            "defs.yaml in it"
        )
    module = types.ModuleType("batch_etl_user_defs")
    module.__path__ = [str(folder)]
    module.__file__ = str(folder / "__init__.py")
    sys.modules[module.__name__] = module
    tree = ComponentTree.from_module(defs_module=module, project_root=folder.parent)
    return tree.build_defs(folder)  # at a path: to the whole, Dagster adds what its UI tells


def _root_cause(error: BaseException) -> str:
    """The innermost message: what is wrong, without the way it was found out."""
    import pydantic

    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, pydantic.ValidationError):
        return "\n".join(_problem(problem) for problem in error.errors())
    return str(error).strip()


def _problem(problem: Any) -> str:
    """``where: what``; Dagster has put key, file and line into the location."""
    where = ".".join(str(part) for part in problem["loc"])
    return f"{where}: {str(problem['msg']).removeprefix('Value error, ')}"


@contextmanager
def ledger(settings: environment.Settings) -> Iterator[Ledger | None]:
    """The ledger as the environment says; None where it is not there yet, and nothing is made."""
    from batch_etl.batches.ledger import Ledger

    url = settings.ledger_url or f"sqlite:///{settings.home / 'ledger.db'}"
    if not is_there(url):
        yield None
        return
    with closing(Ledger(url)) as opened:
        yield opened


def require_transforms(opened: Ledger | None, pipeline: str) -> None:
    """Raises ``ConfigError`` for a pipeline of which the ledger has nothing."""
    known = opened.pipelines() if opened else []
    if pipeline not in known:
        near = did_you_mean(pipeline, known)
        raise ConfigError(f"no transform of pipeline {pipeline!r} was ever made{near}")


def is_there(url: str) -> bool:
    """Whether a database may be opened: not a SQLite file that would be made then."""
    from batch_etl.batches import database

    place = database.parsed(url)
    return place.get_backend_name() != "sqlite" or Path(place.database or "").exists()


@contextmanager
def instance(settings: environment.Settings) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance below the home (or DAGSTER_HOME, where the user set it)."""
    import dagster as dg

    with dg.DagsterInstance.from_config(str(dagster_home(settings))) as opened:
        yield opened


def dagster_home(settings: environment.Settings) -> Path:
    """Dagster's home: DAGSTER_HOME if set, else ``<home>/dagster`` with our dagster.yaml in it."""
    import yaml

    own = os.environ.get("DAGSTER_HOME")
    if own:
        return Path(own)
    folder = settings.home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_dump(_rooted(yaml.safe_load(_dagster_yaml()), str(folder)))
    path = folder / "dagster.yaml"
    if not path.exists() or path.read_text(encoding="utf-8") != config:
        path.write_text(config, encoding="utf-8")
    return folder


def _dagster_yaml() -> str:
    """The dagster.yaml of the working folder, else the one that this package brings."""
    here = Path("dagster.yaml")
    if here.exists():
        return here.read_text(encoding="utf-8")
    packaged = files("batch_etl") / "dagster.yaml"
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    checkout = Path(__file__).parents[2] / "dagster.yaml"
    return checkout.read_text(encoding="utf-8")


def _rooted(value: Any, folder: str) -> Any:
    """The same configuration with ``data/dagster`` replaced by the real folder."""
    if isinstance(value, dict):
        return {key: _rooted(item, folder) for key, item in value.items()}
    if isinstance(value, str) and (value == "data/dagster" or value.startswith("data/dagster/")):
        return folder + value.removeprefix("data/dagster")
    return value
