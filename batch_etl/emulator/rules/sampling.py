"""Thinking, effort, temperature and its kin, stop sequences. Pure."""

from __future__ import annotations

from typing import Any

from batch_etl.emulator.models import Model

SAMPLING = ("temperature", "top_p", "top_k")
EFFORTS = ("low", "medium", "high", "xhigh", "max")
LEAST_BUDGET_TOKENS = 1024


def check_sampling(params: dict[str, Any], model: Model) -> str | None:
    sampling = next((name for name in SAMPLING if name in params), None)
    if sampling and not model.sampling and params[sampling] != 1:  # own words
        return f"{sampling}: only the default value is supported for this model"
    return _check_stop_sequences(params.get("stop_sequences"))


def _check_stop_sequences(sequences: Any) -> str | None:
    if sequences is None:
        return None
    if not isinstance(sequences, list):
        return "stop_sequences: Input should be a valid list"
    for n, sequence in enumerate(sequences):
        if not isinstance(sequence, str):
            return f"stop_sequences.{n}: Input should be a valid string"
        if not sequence.strip():  # (R) LiteLLM issue 3286
            return "stop_sequences: each stop sequence must contain non-whitespace"
    return None


def check_thinking(params: dict[str, Any], model: Model) -> str | None:
    """The words on types and budgets are those of the errors page (D); on display, own words."""
    thinking = params.get("thinking")
    if thinking is None:
        return None
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if kind not in ("enabled", "disabled", "adaptive"):
        return "thinking.type: Input should be 'enabled', 'disabled' or 'adaptive'"
    return (
        _check_display(thinking, kind)
        or _check_kind(params, kind, model)
        or (_check_budget(thinking, params["max_tokens"]) if kind == "enabled" else None)
    )


def _check_display(thinking: dict[str, Any], kind: str) -> str | None:
    display = thinking.get("display")
    if display is None:
        return None
    if kind == "disabled":
        return "thinking.disabled.display: Extra inputs are not permitted"
    if display not in ("summarized", "omitted"):
        return f"thinking.{kind}.display: Input should be 'summarized' or 'omitted'"
    return None


def _check_kind(params: dict[str, Any], kind: str, model: Model) -> str | None:
    if kind == "enabled" and not model.thinking_enabled:
        return (
            '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive"'
            ' and "output_config.effort" to control thinking behavior.'
        )
    if kind == "adaptive" and not model.thinking_adaptive:
        return "adaptive thinking is not supported on this model"
    if kind == "disabled" and not model.thinking_disabled:
        return (
            '"thinking.type.disabled" is not supported for this model. Thinking defaults to'
            ' adaptive mode when not specified; use "thinking.type.enabled" with "budget_tokens"'
            " for extended thinking."
        )
    if kind == "disabled" and model.always_thinks_hard and _effort(params) in ("xhigh", "max"):
        # own words; the rule is the thinking page's, of Opus 5 and later
        return f'"thinking.type.disabled" is not supported with effort {_effort(params)!r}'
    return None


def _effort(params: dict[str, Any]) -> Any:
    config = params.get("output_config")
    return config.get("effort") if isinstance(config, dict) else None


def _check_budget(thinking: dict[str, Any], max_tokens: int) -> str | None:
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int) or budget < LEAST_BUDGET_TOKENS:
        return "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
    if budget >= max_tokens:
        return "`max_tokens` must be greater than `thinking.budget_tokens`."
    return None
