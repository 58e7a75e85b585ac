"""Why a line errs: the checks on ``params`` that the real API makes after the create was accepted.
Pure.

``why_errs`` gives the first fault found, as the error of the result line. Messages in the table of
captured errors are the API's own, word for word; the rest (marked "own words") say the documented
rule.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from batch_etl.emulator import schemas
from batch_etl.emulator.models import Model, find, max_output_tokens
from batch_etl.emulator.shared import once

NEW_VERSION = "2026-10-21"
SAMPLING = ("temperature", "top_p", "top_k")
ALLOWED = frozenset(
    (
        "model", "max_tokens", "messages", "system", "cache_control", "container", "diagnostics",
        "inference_geo", "metadata", "output_config", "service_tier", "stop_sequences", "stream",
        "thinking", "tool_choice", "tools", "user_profile_id", "mcp_servers", "context_management",
        *SAMPLING,
    )
)  # fmt: skip
IMAGE_MAGIC = {
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/webp": (b"RIFF",),
}


@dataclass(frozen=True)
class LineError:
    """The error of an errored line. ``at_execution``: it came up while running, so it has a
    request id.
    """

    message: str
    type: str = "invalid_request_error"
    at_execution: bool = False


@dataclass(frozen=True)
class Terms:
    """What the create's headers said for all lines: API version and betas."""

    version: str = "2023-06-01"
    betas: frozenset[str] = frozenset()


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
    message = (
        _check_max_tokens(params["max_tokens"], model, max_output_tokens(model, terms.betas))
        or _check_messages(params, model)
        or _check_sampling(params, model)
        or _check_thinking(params.get("thinking"), params["max_tokens"], model)
        or _check_tools(params, model)
    )
    if message:
        return LineError(message)
    return _check_output(params) or _check_media(params)


def why_not_counted(params: Any) -> LineError | None:
    """The first fault of a count_tokens body: like Messages, without max_tokens."""
    if not isinstance(params, dict):
        return LineError("Input should be a valid dictionary or object to extract fields from")
    if "max_tokens" in params:
        return LineError("max_tokens: Extra inputs are not permitted")
    return why_errs({**params, "max_tokens": 1}, Terms())


def _check_frame(params: dict[str, Any]) -> str | None:
    if params.get("stream"):
        return '"stream=True" is not supported in the Message Batches API'
    extra = next((name for name in params if name not in ALLOWED), None)
    if extra is not None:
        return f"{extra}: Extra inputs are not permitted"
    missing = next((n for n in ("model", "max_tokens", "messages") if n not in params), None)
    if missing is not None:
        return f"{missing}: Field required"
    if not isinstance(params["model"], str):
        return "model: Input should be a valid string"
    return None


def version_fault(params: dict[str, Any]) -> str | None:
    """What API version 2026-10-21 no longer takes (own words; the rules are the migration
    guide's).
    """
    sampling = next((name for name in SAMPLING if name in params), None)
    if sampling:
        return f"{sampling}: Extra inputs are not permitted"
    for where, role, block in _all_blocks(params):
        if role == "assistant" and block.get("type") == "document":
            return f"{where}: document blocks are not permitted in assistant messages"
        if role == "user" and block.get("type") == "text" and block.get("citations"):
            return f"{where}.citations: citations are not permitted in user messages"
    return None


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


def _check_messages(params: dict[str, Any], model: Model) -> str | None:
    messages = params["messages"]
    if not isinstance(messages, list):
        return "messages: Input should be a valid list"
    if not messages:
        return "messages: at least one message is required"
    for n, turn in enumerate(messages):
        if message := _check_turn(f"messages.{n}", turn):
            return message
    if messages[-1]["role"] == "assistant" and not model.prefill:  # own words
        return (
            "This model does not support assistant message prefill."
            " The conversation must end with a user message."
        )
    return _check_content("system", params["system"]) if "system" in params else None


def _check_turn(where: str, turn: Any) -> str | None:
    if not isinstance(turn, dict):
        return f"{where}: Input should be a valid dictionary or object to extract fields from"
    for name in ("role", "content"):
        if name not in turn:
            return f"{where}.{name}: Field required"
    extra = next((name for name in turn if name not in ("role", "content")), None)
    if extra is not None:
        return f"{where}.{extra}: Extra inputs are not permitted"
    if turn["role"] not in ("user", "assistant", "system"):
        return f"{where}.role: Input should be 'user', 'assistant' or 'system'"
    return _check_content(f"{where}.content", turn["content"])


def _check_content(where: str, content: Any) -> str | None:
    if isinstance(content, str):
        return None if content.strip() or where == "system" else f"{where}: must be non-empty"
    if not isinstance(content, list):
        return f"{where}: Input should be a valid string or list"
    for n, block in enumerate(content):
        if not isinstance(block, dict) or not isinstance(block.get("type"), str):
            return f"{where}.{n}.type: Field required"
        if block["type"] == "text" and not isinstance(block.get("text"), str):
            return f"{where}.{n}.text: Field required"
        if block["type"] == "text" and not block["text"].strip():  # own words
            return f"{where}.{n}.text: text content blocks must be non-empty"
    return None if content or where == "system" else f"{where}: must be non-empty"


def _check_sampling(params: dict[str, Any], model: Model) -> str | None:
    sampling = next((name for name in SAMPLING if name in params), None)
    if sampling and not model.sampling and params[sampling] != 1:  # own words
        return f"{sampling}: only the default value is supported for this model"
    return None


def _check_thinking(thinking: Any, max_tokens: int, model: Model) -> str | None:
    if thinking is None:
        return None
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if kind not in ("enabled", "disabled", "adaptive"):
        return "thinking.type: Input should be 'enabled', 'disabled' or 'adaptive'"
    if kind == "enabled" and not model.thinking_enabled:
        return (
            '"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive".'
        )
    if kind == "disabled" and not model.thinking_disabled:
        return '"thinking.type.disabled" is not supported for this model.'
    return _check_budget(thinking.get("budget_tokens"), max_tokens) if kind == "enabled" else None


def _check_budget(budget: Any, max_tokens: int) -> str | None:
    if not isinstance(budget, int) or budget < 1024:
        return "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024"
    if budget >= max_tokens:
        return "`max_tokens` must be greater than `thinking.budget_tokens`."
    return None


def _check_tools(params: dict[str, Any], model: Model) -> str | None:
    tools = params.get("tools", [])
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        return "tools: Input should be a valid list"
    choice = params.get("tool_choice")
    if choice is None:
        return None
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind not in ("auto", "any", "tool", "none"):
        return "tool_choice.type: Input should be 'auto', 'any', 'tool' or 'none'"
    if kind in ("any", "tool") and not model.forced_tools:  # own words
        return f"tool_choice: forced tool use ('{kind}') is not supported for this model"
    if kind == "tool" and choice.get("name") not in [tool.get("name") for tool in tools]:
        return f"Tool '{choice.get('name')}' not found in provided tools"
    return None


def _check_output(params: dict[str, Any]) -> LineError | None:
    config = params.get("output_config")
    return None if config is None else _check_output_config(config)


@once
def _check_output_config(config: Any) -> LineError | None:
    if not isinstance(config, dict):
        return LineError("output_config: Input should be a valid dictionary")
    extra = next((name for name in config if name not in ("format", "effort")), None)
    if extra is not None:
        return LineError(f"output_config.{extra}: Extra inputs are not permitted")
    if config.get("effort") not in (None, "low", "medium", "high", "xhigh", "max"):
        return LineError(
            "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'"
        )
    return _check_format(config.get("format"))


def _check_format(wanted: Any) -> LineError | None:
    if wanted is None:
        return None
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        return LineError("output_config.format.type: Input should be 'json_schema'")
    if "schema" not in wanted:
        return LineError("output_config.format.schema: Field required")
    extra = next((name for name in wanted if name not in ("type", "schema")), None)
    if extra is not None:
        return LineError(f"output_config.format.{extra}: Extra inputs are not permitted")
    refused = _why_refused(wanted["schema"])
    return LineError(f"output_config.format.{refused}") if refused else None


def _why_refused(schema: Any) -> str | None:
    try:
        return schemas.why_refused(schema)
    except RecursionError:
        return "schema: Schema is too complex for compilation"


def _check_media(params: dict[str, Any]) -> LineError | None:
    for where, _, block in _all_blocks(params):
        if block.get("type") not in ("image", "document"):
            continue
        source = block.get("source")
        if not isinstance(source, dict):
            return LineError(f"{where}.source: Field required")
        if source.get("type") == "url":
            message = "Unable to download the file. Please verify the URL and try again."
            return LineError(message, at_execution=True)
        if block["type"] == "image" and source.get("type") == "base64" and not _is_image(source):
            return LineError("Could not process image")
    return None


def _is_image(source: dict[str, Any]) -> bool:
    magic = IMAGE_MAGIC.get(str(source.get("media_type")))
    data = source.get("data")
    if magic is None or not isinstance(data, str):
        return False
    try:
        return base64.b64decode(data, validate=True).startswith(magic)
    except (binascii.Error, ValueError):
        return False


def _all_blocks(params: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every content block of every turn, with its place and role."""
    messages = params.get("messages")
    for n, turn in enumerate(messages if isinstance(messages, list) else []):
        content = turn.get("content") if isinstance(turn, dict) else None
        if not isinstance(content, list):
            continue
        for m, block in enumerate(content):
            if isinstance(block, dict):
                yield f"messages.{n}.content.{m}", str(turn.get("role")), block
