"""The models a batch may name, with their output limits and what they refuse.

Source: the SDK's model list and Anthropic's model and deprecation pages, as of 2026-11. Only the
4.5 family has aliases; every later id is itself the pinned one.
"""

from __future__ import annotations

from dataclasses import dataclass

LONG_OUTPUT_BETA = "output-300k-2026-03-24"
LONG_OUTPUT_TOKENS = 300_000


@dataclass(frozen=True, eq=False)
class Model:
    """``sampling``: takes temperature and its kin; ``prefill``: may go on from an assistant turn;
    ``forced_tools``: takes tool_choice any or tool; ``thinking_enabled``/``_disabled``: takes that
    type; ``dense_tokens``: has the tokenizer of 4.7 and later (about 30% more tokens for the same
    text).
    """

    id: str
    max_output_tokens: int = 128_000
    sampling: bool = False
    prefill: bool = False
    forced_tools: bool = True
    thinking_enabled: bool = False
    thinking_disabled: bool = True
    dense_tokens: bool = True
    long_output: bool = False


def _old(model_id: str) -> Model:
    return Model(
        model_id,
        max_output_tokens=64_000,
        sampling=True,
        prefill=True,
        thinking_enabled=True,
        dense_tokens=False,
    )


def _pinned() -> list[Model]:
    no_force = {"forced_tools": False}
    always_thinks = {"thinking_disabled": False}
    return [
        Model("claude-fable-5-2", **no_force, **always_thinks),
        Model("claude-mythos-5-2"),
        Model("claude-haiku-5-5"),
        Model("claude-sonnet-5-5", **no_force, long_output=True),
        Model("claude-opus-5-5", **no_force, **always_thinks, long_output=True),
        Model("claude-fable-5-1", **no_force, **always_thinks),
        Model("claude-mythos-5-1"),
        Model("claude-opus-5", long_output=True),
        Model("claude-sonnet-5", long_output=True),
        Model("claude-fable-5", **always_thinks),
        Model("claude-mythos-5"),
        Model("claude-opus-4-8", long_output=True),
        Model("claude-opus-4-7", long_output=True),
        Model(
            "claude-opus-4-6",
            sampling=True,
            thinking_enabled=True,
            dense_tokens=False,
            long_output=True,
        ),
        Model(
            "claude-sonnet-4-6",
            sampling=True,
            thinking_enabled=True,
            dense_tokens=False,
            long_output=True,
        ),
        _old("claude-haiku-4-5-20251001"),
        _old("claude-opus-4-5-20251101"),
        _old("claude-sonnet-4-5-20250929"),
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
