"""(policy, the last attempt of a question) -> the next attempt, or review. By cause.

    Expired, Canceled, Missing        the same request again: it never ran, or its line was lost
    Errored by the API's fault        the same request again
    Errored by the request's fault    review: the same bytes would fail the same way
    Invalid                           repaired: with the faulty answer and what is wrong with it as
                                      further turns; where the model stopped to call a tool, or its
                                      message cannot be read, review
    Truncated by max_tokens           with more tokens, up to a limit; then review
    Truncated by the model's context  review
    Refused                           review, or the next stronger model

The task's ``retry`` says which of these happen; its ladder of stronger models says who is asked
after the n-th answer that was paid for and cannot be used (a *failed* one). ``max_attempts`` limits
all sends of a question.

All that counts is in the last attempt's row of an answers file (:class:`Tried`), so any transform
can go on where another one stopped. An outcome after which no step follows is *for good*: it
answers its ``request_key`` until the policy changes. What was free is never for good: it may have
had a cause outside the request (a model not yet enabled, a file that has come back).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from batch_etl.batches.models import output_limit
from batch_etl.batches.outcome import BILLED
from batch_etl.batches.task import Task

TRANSIENT_ERRORS = frozenset(
    {"api_error", "overloaded_error", "rate_limit_error", "timeout_error", "unreadable_result"}
)
"""Error types of a line that the same request may not meet again (error table of the API)."""

FAILED: frozenset[str] = BILLED - {"Succeeded"}
"""Kinds that were paid for and cannot be used."""

_FREE_AND_PASSING = frozenset({"Expired", "Canceled", "Missing"})
_STOPPED_FOR_MORE = frozenset({"tool_use", "pause_turn"})

Turns = Literal["none", "latest", "same"]
"""Which further turns a request has: none, of the last attempt's answer, or those that the last
attempt had itself."""

_NO_TURNS: Turns = "none"


@dataclass(frozen=True)
class Policy:
    """How often and how a task's questions are asked again."""

    claude_model: str
    max_tokens: int
    max_attempts: int = 3
    invalid: Literal["repair", "again", "review"] = "repair"
    truncated: Literal["more_tokens", "review"] = "more_tokens"
    refused: Literal["review", "stronger_model"] = "review"
    stronger_models: tuple[str, ...] = ()
    max_tokens_factor: float = 2
    tool_is_answer: bool = False
    """The model answers by calling a tool."""
    limits: tuple[tuple[str, int], ...] = ()
    """The most tokens that a model may be asked for, where there is a limit."""

    @classmethod
    def of(cls, task: Task) -> Policy:
        retry = task.retry
        limits = {
            model: [n for n in (output_limit(model, task.betas), retry.max_tokens_limit) if n]
            for model in (task.claude_model, *retry.stronger_models)
        }
        return cls(
            claude_model=task.claude_model,
            max_tokens=task.max_tokens,
            max_attempts=task.max_attempts,
            invalid=retry.invalid,
            truncated=retry.truncated,
            refused=retry.refused,
            stronger_models=retry.stronger_models,
            max_tokens_factor=retry.max_tokens_factor,
            tool_is_answer=task.answer_from == "tool",
            limits=tuple((model, min(both)) for model, both in limits.items() if both),
        )

    def model_after(self, failed: int) -> str:
        """Who is asked once so many answers to a question have failed."""
        if not failed or not self.stronger_models:
            return self.claude_model
        return self.stronger_models[min(failed, len(self.stronger_models)) - 1]

    def at_most(self, max_tokens: int, model: str) -> int:
        """So many tokens, or as many as the model may be asked for."""
        return min(max_tokens, dict(self.limits).get(model, max_tokens))


@dataclass(frozen=True)
class Tried:
    """The last attempt of a question: what was asked of whom, and what became of it."""

    attempt: int
    kind: str
    error_type: str | None = None
    stop_reason: str | None = None
    claude_model: str | None = None
    """Who was asked; None: the task's own model."""
    max_tokens: int | None = None
    """What was asked for; None: the task's own."""
    failed: int = 0
    """How many answers to this question had failed before this attempt."""


@dataclass(frozen=True)
class Step:
    """The next attempt of a question, as it differs from the question."""

    attempt: int
    claude_model: str | None = None
    max_tokens: int | None = None
    failed: int = 0
    turns: Turns = "none"


def next_step(policy: Policy, last: Tried) -> Step | None:
    """What to ask after ``last``; None: nothing any more, the record goes to review."""
    if last.attempt >= policy.max_attempts:
        return None
    if worth_another_try(last.kind, last.error_type):
        return Step(last.attempt + 1, last.claude_model, last.max_tokens, last.failed, "same")
    return _after_failure(policy, last) if last.kind in FAILED else None


def _after_failure(policy: Policy, last: Tried) -> Step | None:
    asked_model = last.claude_model or policy.claude_model
    asked_tokens = last.max_tokens or policy.max_tokens
    model = policy.model_after(last.failed + 1)
    tokens, turns = asked_tokens, _NO_TURNS
    match last.kind:
        case "Invalid":
            worth_it = policy.invalid != "review" and _can_be_mended(policy, last.stop_reason)
            turns = "latest" if policy.invalid == "repair" else "none"
        case "Truncated":
            tokens = math.ceil(asked_tokens * policy.max_tokens_factor)
            worth_it = (
                policy.truncated == "more_tokens"
                and last.stop_reason == "max_tokens"
                and policy.at_most(tokens, model) > asked_tokens
            )
            turns = "same"
        case _:
            worth_it = policy.refused == "stronger_model" and model != asked_model
    tokens = policy.at_most(tokens, model)
    step = Step(
        attempt=last.attempt + 1,
        claude_model=None if model == policy.claude_model else model,
        max_tokens=None if tokens == policy.max_tokens else tokens,
        failed=last.failed + 1,
        turns=turns,
    )
    return step if worth_it else None


def _can_be_mended(policy: Policy, stop_reason: str | None) -> bool:
    """Whether there is an answer to repair: none where the message's shape was unknown."""
    if stop_reason == "tool_use" and policy.tool_is_answer:
        return True
    return stop_reason is not None and stop_reason not in _STOPPED_FOR_MORE


def worth_another_try(kind: str, error_type: str | None) -> bool:
    """Whether sending the same bytes again can bring an answer."""
    return kind in _FREE_AND_PASSING or (kind == "Errored" and error_type in TRANSIENT_ERRORS)
