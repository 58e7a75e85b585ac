"""Retry by cause: from the last attempt alone to the next one, or to review."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_etl.batches.outcome import KINDS
from batch_etl.batches.retry import FAILED, Policy, Step, Tried, next_step, worth_another_try
from batch_etl_tests.batches.engine import task

DEFAULT = Policy("haiku", 100, max_attempts=3)
LADDER = replace(DEFAULT, stronger_models=("sonnet", "opus"), max_attempts=9)
REFUSALS = replace(LADDER, refused="stronger_model")


@pytest.mark.parametrize(
    ("kind", "error_type", "again"),
    [
        ("Expired", None, True),
        ("Canceled", None, True),
        ("Missing", None, True),
        ("Errored", "api_error", True),
        ("Errored", "overloaded_error", True),
        ("Errored", "rate_limit_error", True),
        ("Errored", "timeout_error", True),
        ("Errored", "invalid_request_error", False),
        ("Errored", "not_found_error", False),
        ("Errored", "permission_error", False),
        ("Errored", "billing_error", False),
        ("Errored", "request_too_large", False),
        ("Errored", "a_type_nobody_has_heard_of", False),
        ("Errored", None, False),
        ("Succeeded", None, False),
        ("Invalid", None, False),
        ("Truncated", None, False),
        ("Refused", None, False),
    ],
)
def test_the_same_request_is_sent_again_by_the_cause_of_its_outcome(kind, error_type, again):
    assert worth_another_try(kind, error_type) is again
    step = next_step(DEFAULT, Tried(1, kind, error_type))
    assert (step == Step(2, turns="same")) is again


CASES: list[tuple[str, Policy, Tried, Step | None]] = [
    # what was free is asked again just as it was, whatever it was
    ("a repair that expired is the same repair again", DEFAULT,
     Tried(2, "Expired", None, None, "sonnet", 400, 1), Step(3, "sonnet", 400, 1, "same")),
    ("a missing line counts as no failed answer", LADDER,
     Tried(1, "Missing"), Step(2, None, None, 0, "same")),
    ("an overloaded API is no reason for another model", LADDER,
     Tried(2, "Errored", "overloaded_error", None, "sonnet", None, 1),
     Step(3, "sonnet", None, 1, "same")),
    ("a request at fault is not sent again", DEFAULT,
     Tried(1, "Errored", "invalid_request_error"), None),
    ("an answer needs no other", DEFAULT, Tried(1, "Succeeded", None, "end_turn"), None),
    # invalid
    ("an invalid answer is repaired", DEFAULT,
     Tried(1, "Invalid", None, "end_turn"), Step(2, None, None, 1, "latest")),
    ("a repair that is invalid is repaired, by its own answer", DEFAULT,
     Tried(2, "Invalid", None, "stop_sequence", failed=1), Step(3, None, None, 2, "latest")),
    ("a repair keeps the tokens that an attempt before it was given", DEFAULT,
     Tried(2, "Invalid", None, "end_turn", None, 200, 1), Step(3, None, 200, 2, "latest")),
    ("a call of a tool cannot be repaired", DEFAULT, Tried(1, "Invalid", None, "tool_use"), None),
    ("a paused turn cannot be repaired", DEFAULT, Tried(1, "Invalid", None, "pause_turn"), None),
    ("a message of unknown shape cannot be repaired", DEFAULT, Tried(1, "Invalid"), None),
    ("invalid: again asks as before", replace(DEFAULT, invalid="again"),
     Tried(1, "Invalid", None, "end_turn"), Step(2, None, None, 1, "none")),
    ("invalid: review ends it", replace(DEFAULT, invalid="review"),
     Tried(1, "Invalid", None, "end_turn"), None),
    # truncated
    ("a truncated answer gets double the tokens", DEFAULT,
     Tried(1, "Truncated", None, "max_tokens"), Step(2, None, 200, 1, "same")),
    ("and double again", DEFAULT,
     Tried(2, "Truncated", None, "max_tokens", None, 200, 1), Step(3, None, 400, 2, "same")),
    ("a factor that is no whole number rounds up", replace(DEFAULT, max_tokens_factor=1.003),
     Tried(1, "Truncated", None, "max_tokens"), Step(2, None, 101, 1, "same")),
    ("growth stops at the limit", replace(DEFAULT, limits=(("haiku", 150),)),
     Tried(1, "Truncated", None, "max_tokens"), Step(2, None, 150, 1, "same")),
    ("what cannot grow goes to review", replace(DEFAULT, limits=(("haiku", 150),)),
     Tried(2, "Truncated", None, "max_tokens", None, 150, 1), None),
    ("a filled context goes to review", DEFAULT,
     Tried(1, "Truncated", None, "model_context_window_exceeded"), None),
    ("truncated: review ends it", replace(DEFAULT, truncated="review"),
     Tried(1, "Truncated", None, "max_tokens"), None),
    # refused
    ("a refusal goes to review", DEFAULT, Tried(1, "Refused", None, "refusal"), None),
    ("a refusal goes to review although there is a ladder", LADDER,
     Tried(1, "Refused", None, "refusal"), None),
    ("a refusal goes up the ladder where that is wanted", REFUSALS,
     Tried(1, "Refused", None, "refusal"), Step(2, "sonnet", None, 1, "none")),
    ("and up again", REFUSALS,
     Tried(2, "Refused", None, "refusal", "sonnet", None, 1), Step(3, "opus", None, 2, "none")),
    ("what the last of the ladder refuses goes to review", REFUSALS,
     Tried(3, "Refused", None, "refusal", "opus", None, 2), None),
    # the ladder
    ("after the first failed answer the first is asked", LADDER,
     Tried(1, "Invalid", None, "end_turn"), Step(2, "sonnet", None, 1, "latest")),
    ("attempts that were free do not climb", LADDER,
     Tried(3, "Invalid", None, "end_turn"), Step(4, "sonnet", None, 1, "latest")),
    ("after the second failed answer the second is asked", LADDER,
     Tried(2, "Invalid", None, "end_turn", "sonnet", None, 1), Step(3, "opus", None, 2, "latest")),
    ("the last of the ladder is asked from then on", LADDER,
     Tried(5, "Invalid", None, "end_turn", "opus", None, 4), Step(6, "opus", None, 5, "latest")),
    ("the own model may stand in the ladder", replace(LADDER, stronger_models=("haiku", "opus")),
     Tried(1, "Invalid", None, "end_turn"), Step(2, None, None, 1, "latest")),
    ("a truncated answer climbs too", LADDER,
     Tried(1, "Truncated", None, "max_tokens"), Step(2, "sonnet", 200, 1, "same")),
    ("nobody is asked for more than the model writes", replace(LADDER, limits=(("opus", 300),)),
     Tried(2, "Invalid", None, "end_turn", "sonnet", 800, 1), Step(3, "opus", 300, 2, "latest")),
    ("the task's own number of tokens is not said again",
     replace(LADDER, limits=(("opus", 100),)),
     Tried(2, "Invalid", None, "end_turn", "sonnet", 200, 1), Step(3, "opus", None, 2, "latest")),
]  # fmt: skip


@pytest.mark.parametrize(("policy", "last", "step"), [case[1:] for case in CASES],
                         ids=[case[0] for case in CASES])  # fmt: skip
def test_what_comes_next_follows_from_the_last_attempt(policy, last, step):
    assert next_step(policy, last) == step


TRIED = st.builds(
    Tried,
    attempt=st.integers(1, 10),
    kind=st.sampled_from(KINDS),
    error_type=st.sampled_from([None, "api_error", "invalid_request_error"]),
    stop_reason=st.sampled_from([None, "end_turn", "max_tokens", "tool_use", "refusal"]),
    claude_model=st.sampled_from([None, "sonnet"]),
    max_tokens=st.none() | st.integers(1, 1_000),
    failed=st.integers(0, 9),
)
POLICIES = st.builds(
    Policy,
    claude_model=st.just("haiku"),
    max_tokens=st.integers(1, 500),
    max_attempts=st.integers(1, 10),
    invalid=st.sampled_from(["repair", "again", "review"]),
    truncated=st.sampled_from(["more_tokens", "review"]),
    refused=st.sampled_from(["review", "stronger_model"]),
    stronger_models=st.lists(st.sampled_from(["sonnet", "opus"]), max_size=3).map(tuple),
    max_tokens_factor=st.floats(1.001, 100),
    limits=st.sampled_from([(), (("haiku", 600), ("sonnet", 600), ("opus", 700))]),
)


@given(POLICIES, TRIED)
def test_no_chain_goes_on_for_ever_or_asks_for_what_cannot_be_had(policy, last):
    step = next_step(policy, last)
    if step is None:
        return
    assert step.attempt == last.attempt + 1 <= policy.max_attempts
    assert step.failed == last.failed + (last.kind in FAILED)
    assert last.kind != "Succeeded"
    if last.kind in FAILED:
        asked = step.max_tokens or policy.max_tokens
        assert asked <= dict(policy.limits).get(step.claude_model or "haiku", 10**6)
        assert step.claude_model in (None, *policy.stronger_models)


@given(POLICIES, TRIED)
def test_more_attempts_never_take_a_step_away(policy, last):
    step = next_step(policy, last)
    if step is not None:
        assert next_step(replace(policy, max_attempts=policy.max_attempts + 1), last) == step


def test_the_policy_of_a_task_knows_the_limits_of_its_models():
    retry: dict[str, Any] = {"stronger_models": ["claude-opus-5"], "max_tokens_factor": 3}
    policy = Policy.of(task(retry=retry, max_attempts=5))
    assert (policy.claude_model, policy.max_tokens, policy.max_attempts) == (
        "claude-haiku-4-5",
        100,
        5,
    )
    assert (policy.invalid, policy.truncated, policy.refused) == ("repair", "more_tokens", "review")
    assert dict(policy.limits) == {"claude-haiku-4-5": 64_000, "claude-opus-5": 128_000}
    assert policy.max_tokens_factor == 3


def test_a_lower_limit_of_the_users_goes_before_the_models():
    policy = Policy.of(task(retry={"max_tokens_limit": 500}))
    assert policy.at_most(1_000, "claude-haiku-4-5") == 500


def test_an_unknown_model_has_no_limit_but_the_users():
    unknown = {"claude_model": "claude-next-9", "allow_unknown_model": True}
    assert Policy.of(task(**unknown)).at_most(10**6, "claude-next-9") == 10**6
    limited = Policy.of(task(**unknown, retry={"max_tokens_limit": 200}))
    assert limited.at_most(10**6, "claude-next-9") == 200


def test_a_beta_for_long_answers_lifts_the_limit():
    own = task(claude_model="claude-opus-5", betas=["output-300k-2026-03-24"])
    assert Policy.of(own).at_most(10**6, "claude-opus-5") == 300_000
