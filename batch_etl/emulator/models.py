"""The models a batch may name, with their output limits and what they refuse.

Source: the SDK's model list and Anthropic's model and deprecation pages, as of 2026-11. Only the
4.5 family has aliases; every later id is itself the pinned one. The shortest prefix that is cached
is the prompt-caching page's of August 2026; models newer than it are taken to be like Opus 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

LONG_OUTPUT_BETA = "output-300k-2026-03-24"
LONG_OUTPUT_TOKENS = 300_000


@dataclass(frozen=True, eq=False)
class Model:
    """``sampling``: takes temperature and its kin; ``prefill``: may go on from an assistant turn;
    ``forced_tools``: takes tool_choice any or tool; ``thinking_enabled``/``_adaptive``/
    ``_disabled``: takes that type; ``always_thinks_hard``: does not take disabled with effort
    xhigh or max; ``dense_tokens``: 4.7 or later (a tokenizer of about 30% more tokens for the same
    text, larger images, thinking that is not shown unless asked for); ``least_cached_tokens``: a
    shorter prefix is not cached.
    """

    id: str
    max_output_tokens: int = 128_000
    context_tokens: int = 1_000_000
    sampling: bool = False
    prefill: bool = False
    forced_tools: bool = True
    thinking_enabled: bool = False
    thinking_adaptive: bool = True
    thinking_disabled: bool = True
    always_thinks_hard: bool = False
    dense_tokens: bool = True
    long_output: bool = False
    least_cached_tokens: int = 512


def _of_4_5(model_id: str, least_cached_tokens: int) -> Model:
    return Model(
        model_id,
        max_output_tokens=64_000,
        context_tokens=200_000,
        sampling=True,
        prefill=True,
        thinking_enabled=True,
        thinking_adaptive=False,
        dense_tokens=False,
        least_cached_tokens=least_cached_tokens,
    )


def _of_4_6(model_id: str, least_cached_tokens: int) -> Model:
    return Model(
        model_id,
        sampling=True,
        thinking_enabled=True,
        dense_tokens=False,
        long_output=True,
        least_cached_tokens=least_cached_tokens,
    )


def _pinned() -> list[Model]:
    no_force: dict[str, Any] = {"forced_tools": False}
    always_thinks: dict[str, Any] = {"thinking_disabled": False}
    thinks_hard: dict[str, Any] = {"always_thinks_hard": True}
    return [
        Model("claude-fable-5-2", **no_force, **always_thinks),
        Model("claude-mythos-5-2"),
        Model("claude-haiku-5-5", **thinks_hard),
        Model("claude-sonnet-5-5", **no_force, **thinks_hard, long_output=True),
        Model("claude-opus-5-5", **no_force, **always_thinks, long_output=True),
        Model("claude-fable-5-1", **no_force, **always_thinks),
        Model("claude-mythos-5-1", **always_thinks),
        Model("claude-opus-5", **thinks_hard, long_output=True),
        Model("claude-sonnet-5", long_output=True, least_cached_tokens=1_024),
        Model("claude-fable-5", **always_thinks),
        Model("claude-mythos-5", **always_thinks),
        Model("claude-opus-4-8", long_output=True, least_cached_tokens=1_024),
        Model("claude-opus-4-7", long_output=True, least_cached_tokens=2_048),
        _of_4_6("claude-opus-4-6", 4_096),
        _of_4_6("claude-sonnet-4-6", 1_024),
        _of_4_5("claude-haiku-4-5-20251001", 4_096),
        _of_4_5("claude-opus-4-5-20251101", 4_096),
        _of_4_5("claude-sonnet-4-5-20250929", 1_024),
    ]


MODELS = {model.id: model for model in _pinned()}
ALIASES = {
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "claude-opus-4-5": "claude-opus-4-5-20251101",
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
}


def find(name: str) -> Model | None:
    """The model of that id or alias; None when the API would not know it."""
    return MODELS.get(ALIASES.get(name, name))


def max_output_tokens(model: Model, betas: frozenset[str]) -> int:
    if model.long_output and LONG_OUTPUT_BETA in betas:
        return LONG_OUTPUT_TOKENS
    return model.max_output_tokens
