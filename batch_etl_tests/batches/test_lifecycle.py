"""The transition tables: closed, every status reachable, the ends final."""

from __future__ import annotations

from typing import get_args

import pytest

from batch_etl.batches.errors import LedgerError
from batch_etl.batches.lifecycle import (
    BATCH_MOVES,
    OPEN_BATCH,
    TRANSFORM_MOVES,
    BatchStatus,
    TransformStatus,
    check_move,
)

TABLES = [
    (BATCH_MOVES, get_args(BatchStatus), "planned", {"collected", "dropped", "lost"}),
    (TRANSFORM_MOVES, get_args(TransformStatus), "planning", {"done", "superseded"}),
]


def reachable(moves: dict[str, frozenset[str]], start: str) -> set[str]:
    found: set[str] = set()
    todo = {start}
    while todo:
        status = todo.pop()
        found.add(status)
        todo |= moves[status] - found
    return found


@pytest.mark.parametrize(("moves", "statuses", "start", "final"), TABLES)
def test_the_table_knows_every_status_and_reaches_each_from_the_first(
    moves, statuses, start, final
):
    assert set(moves) == set(statuses)
    assert reachable(moves, start) == set(statuses)
    assert {status for status, after in moves.items() if not after} == final


@pytest.mark.parametrize(("moves", "statuses", "start", "final"), TABLES)
def test_a_move_is_allowed_exactly_when_the_table_has_it(moves, statuses, start, final):
    for before in statuses:
        for after in statuses:
            if after in moves[before]:
                check_move(moves, before, after)
            else:
                with pytest.raises(LedgerError, match=f"{before} cannot become {after}"):
                    check_move(moves, before, after)


def test_a_refused_move_says_what_may_follow():
    with pytest.raises(LedgerError, match="comes dropped, lost, planned, submitted"):
        check_move(BATCH_MOVES, "submitting", "collected")
    with pytest.raises(LedgerError, match="nothing: it is final"):
        check_move(BATCH_MOVES, "collected", "planned")


def test_a_batch_may_bring_answers_until_it_is_in_a_final_status():
    assert {status for status, after in BATCH_MOVES.items() if after} == OPEN_BATCH


def test_a_batch_is_never_sent_again_after_it_was_submitted():
    assert not reachable(BATCH_MOVES, "submitted") & {"planned", "submitting"}
