"""Lines printed from what was learned of an earlier one are the bytes that composing would give."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_etl.emulator import frames
from batch_etl.emulator.lines import Terms
from batch_etl.emulator.outcomes import Examiner, Outcome
from batch_etl.emulator.prompt_cache import CROWD
from batch_etl_tests.emulator.driver import SCHEMA, asking_for_json, params

MARKED = [{"type": "text", "text": "Be brief. " * 700, "cache_control": {"type": "ephemeral"}}]
EXAMPLES = [
    {"role": "user", "content": "The lamp glows."},
    {"role": "assistant", "content": [{"type": "text", "text": '{"label":"safe"}'}]},
]
TOOL = {"name": "label", "input_schema": SCHEMA}
THINKING = {"type": "enabled", "budget_tokens": 1024}
SHAPES: dict[str, dict[str, Any]] = {
    "a schema": asking_for_json(),
    "no schema": {},
    "a system prompt": {"system": "flagged: broken things; safe: the rest", **asking_for_json()},
    "a cached prefix": {"system": MARKED, "model": "claude-sonnet-4-6", **asking_for_json()},
    "automatic caching": {"system": MARKED, "cache_control": {"type": "ephemeral"}},
    "examples": {"messages": EXAMPLES, **asking_for_json()},
    "stop sequences": {"stop_sequences": ["broken", "12"]},
    "adaptive thinking": {"thinking": {"type": "adaptive"}, "model": "claude-opus-5"},
    "thinking": {"thinking": THINKING, "max_tokens": 2000},
    "answers longer than max_tokens": {"max_tokens": 3},
    "a forced tool": {"tools": [TOOL], "tool_choice": {"type": "any"}},
    "an error": {"temperature": "hot", "model": "claude-nobody"},
}
TEXTS = [
    "The lamp is broken. It was fine!",
    'He said "no": 12 of them\nnever came \\ \u00e9\u00e8 \U0001f600',
    "<t>label: safe</t>",
    "a much longer text, " * 40,
    "   ",
    "Your answer is not valid JSON.",
    "",
    "x",
]


def raw(text: Any, **changes: Any) -> bytes:
    asked = params("", **changes)
    before = changes.get("messages", [])
    del asked["messages"]
    return msgspec.json.encode({**asked, "messages": [*before, turn(text)]})


def turn(text: Any) -> dict[str, Any]:
    return {"role": "user", "content": text}


def composed_alone(custom_id: str, data: bytes, warm: bytes) -> Outcome:
    """By an examiner that has seen only another line, and composes this one too."""
    examiner = warmed(warm)
    return examiner._composed(custom_id, data)


def warmed(line: bytes) -> Examiner:
    """Past the lines that write what they cache."""
    examiner = Examiner(seed=3, terms=Terms(), conditions=[])
    for n in range(CROWD + 1):
        examiner.outcome(f"w{n}", line)
    return examiner


@pytest.mark.parametrize("shape", SHAPES)
def test_every_later_line_is_what_it_would_be_if_it_were_composed(shape: str) -> None:
    changes = SHAPES[shape]
    lines = [raw(text, **changes) for text in TEXTS]
    examiner = warmed(lines[0])
    for n, line in enumerate(lines[1:], 1):
        outcome = examiner.outcome(f"r{n}", line)
        assert outcome == composed_alone(f"r{n}", line, lines[0])
        assert json.loads(outcome.line)["custom_id"] == f"r{n}"


@pytest.mark.parametrize("shape", ["a schema", "a cached prefix", "examples", "stop sequences"])
def test_lines_of_one_task_are_printed(shape: str) -> None:
    line = raw("The lamp was fine.", **SHAPES[shape])
    assert warmed(line)._printed("r", line) is not None


def test_equal_params_have_one_digest_whatever_their_order_and_spaces() -> None:
    asked = params("same text", **asking_for_json())
    backwards = json.dumps(dict(reversed(asked.items())), indent=2).encode()
    examiner = Examiner(seed=3, terms=Terms(), conditions=[])
    lines = [raw("another", **asking_for_json()), msgspec.json.encode(asked), backwards]
    other, *same = [examiner.outcome("r", line) for line in lines]
    assert same[0].params_digest == same[1].params_digest != other.params_digest
    assert same[0].question == same[1].question != other.question


@pytest.mark.parametrize(
    "changed",
    [
        raw("other", max_tokens=201),
        raw("other")[:-1] + b',"top_k":1}',
        raw("other", system="s"),
        raw([{"type": "text", "text": "other"}]),
        raw("other")[:-3] + b'x"}]}',
        raw("other").replace(b'"other"', b'"other","role":"assistant"'),
        b"",
    ],
)
def test_a_line_that_differs_elsewhere_is_of_another_frame(changed: bytes) -> None:
    first = raw("first")
    frame = frames.learn(first, json.loads(first))
    assert frame is not None
    assert frame.text(raw("other")) == "other"
    assert frame.text(changed) is None


def test_a_text_that_also_stands_elsewhere_is_found_at_its_own_place() -> None:
    first = raw("user", metadata={"user_id": "user"})
    frame = frames.learn(first, json.loads(first))
    assert frame is None or frame.text(raw("y", metadata={"user_id": "user"})) == "y"
    assert frame is None or frame.text(raw("user", metadata={"user_id": "y"})) is None


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60), st.text(min_size=1, max_size=60))
def test_a_frame_reads_any_text_as_json_does(first: str, second: str) -> None:
    line = raw(first, system=first)
    frame = frames.learn(line, json.loads(line))
    assert frame is not None
    text = frame.text(raw(second, system=first))
    assert text == (second if second.strip() else None)
    assert frame.params_digest(msgspec.json.encode(second)) == frames.params_digest(
        json.loads(raw(second, system=first)), b""
    )
