"""The effects: the list and the call sites are the same, and nothing but a test watches them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import batch_etl
from batch_etl import effects
from batch_etl.batches.lifecycle import BATCH_MOVES, TRANSFORM_MOVES
from batch_etl.effects import EFFECTS, When, effect, watch

CALLS = [
    (node.func.id, node)
    for path in sorted(Path(batch_etl.__file__).parent.rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text("utf-8")))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
]
"""Every call of a plain name in the package."""

WRITERS = {"replacing": 1, "ParquetSink": 2}
"""What brings a file into place, and which of its arguments says what file it is."""


def calls(wanted: str) -> Iterator[ast.Call]:
    return (node for name, node in CALLS if name == wanted)


def moves(kind: str, table: dict[str, frozenset[str]]) -> set[str]:
    return {f"{kind} {before} to {after}" for before, afters in table.items() for after in afters}


def files() -> set[str]:
    said = {"file"}
    for name, place in WRITERS.items():
        for call in calls(name):
            given = call.args[place : place + 1]
            said |= {str(arg.value) for arg in given if isinstance(arg, ast.Constant)}
    return {f"{what} renamed" for what in said}


DRAWN = {
    "{} renamed": files(),
    "batch {} to {}": moves("batch", BATCH_MOVES),
    "transform {} to {}": moves("transform", TRANSFORM_MOVES),
}
"""What the names that are put together at their call site can be."""


def template(name: ast.expr) -> str:
    if isinstance(name, ast.Constant):
        return str(name.value)
    assert isinstance(name, ast.JoinedStr), ast.unparse(name)
    return "".join(
        str(part.value) if isinstance(part, ast.Constant) else "{}" for part in name.values
    )


def marked() -> set[str]:
    """The names of all effects that the package marks."""
    names: set[str] = set()
    for call in calls("effect"):
        name = template(call.args[0])
        names |= DRAWN.get(name, {name})
    return names


def test_every_effect_that_is_marked_is_listed_and_every_listed_one_is_marked():
    assert marked() == set(EFFECTS)
    assert all(said.endswith(".") for said in EFFECTS.values())


def test_nothing_in_the_package_watches_effects():
    assert list(calls("watch")) == []
    assert effects._watcher is None
    assert effect("batch planned") is effect("lease taken"), "off, it is one object for all"


def test_a_watcher_is_told_of_both_points_and_of_the_first_alone_where_the_effect_fails():
    told: list[tuple[str, When]] = []
    watch(lambda name, when: told.append((name, when)))
    try:
        with effect("batch planned"):
            assert told == [("batch planned", "before")]
        with pytest.raises(OSError, match="full"), effect("records renamed"):
            raise OSError("full")
    finally:
        watch(None)
    assert told == [
        ("batch planned", "before"),
        ("batch planned", "after"),
        ("records renamed", "before"),
    ]
    with effect("batch planned"):
        assert len(told) == 3
