"""Commands that look at what there is: a name that is not there is an error, and makes nothing."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from batch_etl.batches.ledger import Ledger
from batch_etl.cli import cli
from batch_etl.errors import ConfigError
from batch_etl.queue import Queue, enqueue
from batch_etl_tests.emulator.driver import Driver


def invoked(*arguments: str) -> Any:
    return CliRunner().invoke(cli, list(arguments))


@pytest.fixture
def used(home: Path, emulator: Driver) -> Path:
    """A home with a transform that is done, and a queue that is empty."""
    home.mkdir()
    with closing(Ledger(f"sqlite:///{home / 'ledger.db'}")) as ledger:
        one = ledger.create_transform(
            pipeline="posts",
            endpoint="emulator",
            scope=[None],
            fingerprint="f" * 64,
            records_digest="d",
            task={},
        )
        with ledger.holding(one) as lease:
            assert lease is not None
            ledger.move_transform(lease, "planning", "superseded")
    with closing(Queue(f"sqlite:///{home / 'queue.db'}")) as queue:
        enqueue(queue, "posts", [{"note_id": "a"}], id="note_id")
        queue.drain("posts")
    return home


NAMED = [("cancel",), ("queue",), ("status", "--pipeline")]


@pytest.mark.parametrize("command", NAMED)
def test_a_misspelt_name_is_an_error_that_names_the_nearest(
    used: Path, command: tuple[str, ...]
) -> None:
    result = invoked(*command, "post")
    assert isinstance(result.exception, ConfigError)
    assert "did you mean 'posts'?" in str(result.exception)


@pytest.mark.parametrize("command", NAMED)
def test_in_a_new_home_a_name_is_an_error_and_no_file_is_made(
    home: Path, emulator: Driver, command: tuple[str, ...]
) -> None:
    result = invoked(*command, "posts")
    assert isinstance(result.exception, ConfigError)
    assert "known are none" in str(result.exception)
    assert not home.exists()


def test_a_known_pipeline_with_nothing_open_is_no_error(used: Path) -> None:
    told = [invoked(*command, "posts") for command in NAMED]
    assert [result.exit_code for result in told] == [0, 0, 0]
    assert told[0].stdout == "posts: nothing is open\n"
    assert told[1].stdout.startswith("posts: nothing waits\n")


def test_without_a_name_a_new_home_has_no_transforms_yet(home: Path) -> None:
    assert "no transforms yet" in invoked("status").stdout


@pytest.mark.parametrize("command", [("status",), ("queue", "posts"), ("review", "list")])
@pytest.mark.parametrize("limit", ["0", "-3"])
def test_a_limit_below_one_is_wrong_usage(used: Path, command: tuple[str, ...], limit: str) -> None:
    assert invoked(*command, "--limit", limit).exit_code == 2
