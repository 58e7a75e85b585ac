"""Why a line errs: the checks on ``params`` that the real API makes after the create was accepted.
Pure, but for the decoding of images and documents.

``why_errs`` gives the first fault found, as the error of the result line; what is checked of each
part of the params, and in whose words, is in ``rules``.
"""

from __future__ import annotations

from typing import Any

from batch_etl.emulator.models import Model, find, max_output_tokens
from batch_etl.emulator.rules.caching import check_caching
from batch_etl.emulator.rules.media import check_media
from batch_etl.emulator.rules.output import check_output
from batch_etl.emulator.rules.sampling import SAMPLING, check_sampling, check_thinking
from batch_etl.emulator.rules.tools import check_tools
from batch_etl.emulator.rules.turns import check_messages, version_fault
from batch_etl.emulator.rules.verdict import NEW_VERSION, LineError, Terms

__all__ = ["NEW_VERSION", "LineError", "Terms", "why_errs", "why_not_counted"]

ALLOWED = frozenset(
    (
        "model", "max_tokens", "messages", "system", "cache_control", "container", "diagnostics",
        "inference_geo", "metadata", "output_config", "service_tier", "stop_sequences", "stream",
        "thinking", "tool_choice", "tools", "user_profile_id", "mcp_servers", "context_management",
        *SAMPLING,
    )
)  # fmt: skip
COUNTED_MAX_TOKENS = 64_000
"""Stands for the ``max_tokens`` that a count does not have: every model allows it."""
NO_STREAM = '"stream=True" is not supported in the Message Batches API'


def why_errs(params: Any, terms: Terms) -> LineError | None:
    """The first fault of a line's params; None when the model would be asked."""
    if not isinstance(params, dict):
        return LineError("params: Input should be a valid dictionary")
    message = _check_frame(params) or (
        version_fault(params) if terms.version == NEW_VERSION else None
    )
    if message:
        return LineError(message)
    model = find(params["model"])
    if model is None:
        return LineError(f"model: {params['model']}", "not_found_error")
    message = _check_parts(params, model, max_output_tokens(model, terms.betas))
    return LineError(message) if message else check_media(params, model)


def why_not_counted(params: Any) -> LineError | None:
    """The first fault of a count_tokens body: like Messages, without max_tokens."""
    if not isinstance(params, dict):
        return LineError("Input should be a valid dictionary or object to extract fields from")
    if "max_tokens" in params:
        return LineError("max_tokens: Extra inputs are not permitted")
    return why_errs({**params, "max_tokens": COUNTED_MAX_TOKENS}, Terms())


def _check_frame(params: dict[str, Any]) -> str | None:
    if params.get("stream"):
        return NO_STREAM
    extra = next((name for name in params if name not in ALLOWED), None)
    if extra is not None:
        return f"{extra}: Extra inputs are not permitted"
    missing = next((n for n in ("model", "max_tokens", "messages") if n not in params), None)
    if missing is not None:
        return f"{missing}: Field required"
    if not isinstance(params["model"], str):
        return "model: Input should be a valid string"
    return None


def _check_parts(params: dict[str, Any], model: Model, most_tokens: int) -> str | None:
    return (
        _check_max_tokens(params["max_tokens"], model, most_tokens)
        or check_messages(params, model)
        or check_sampling(params, model)
        or check_thinking(params, model)
        or check_tools(params, model)
        or check_output(params)
        or check_caching(params)
        or _check_metadata(params)
    )


def _check_max_tokens(asked: Any, model: Model, most: int) -> str | None:
    if not isinstance(asked, int) or isinstance(asked, bool):
        return "max_tokens: Input should be a valid integer"
    if asked < 1:
        return "max_tokens: must be greater than or equal to 1"
    if asked > most:
        return (
            f"max_tokens: {asked} > {most}, which is the maximum allowed number of output tokens"
            f" for {model.id}"
        )
    return None


def _check_metadata(params: dict[str, Any]) -> str | None:
    """Own words; which values there are is the SDK's (``metadata_param``) and the documentation's
    (service tiers in a batch).
    """
    if params.get("service_tier") not in (None, "auto", "standard_only"):
        return "service_tier: Input should be 'auto' or 'standard_only'"
    metadata = params.get("metadata")
    if metadata is None:
        return None
    if not isinstance(metadata, dict):
        return "metadata: Input should be a valid dictionary"
    extra = next((name for name in metadata if name != "user_id"), None)
    return f"metadata.{extra}: Extra inputs are not permitted" if extra else None
