"""A request line becomes its result line(s). Pure: the same line, seed and conditions give the
same bytes.

The four types of the API and what the emulator adds to each: ``model`` is ``emulator:`` and the
resolved id, ids begin with ``msg_emulator_``, ``usage`` has ``emulated: true``. Line faults of the
batch's conditions are applied here.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from batch_etl.emulator import faults, tokens
from batch_etl.emulator.lines import LineError, Terms, why_errs
from batch_etl.emulator.models import ALIASES, MODELS, Model
from batch_etl.emulator.records import Record, asking_turn, text_of
from batch_etl.emulator.replies import answer, extract
from batch_etl.emulator.shared import canonical, decode_params
from batch_etl.emulator.spool import Line
from batch_etl.emulator.wire import derived_id

logger = logging.getLogger("batch_etl.emulator")

INTERNAL_ERROR = LineError("Internal server error", "api_error", at_execution=True)
UNKNOWN_FIELD = {"x_emulator_unknown": {"nobody": ["has", "heard", "of", "this"]}}
Result = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What became of one line. ``lines``: how often it stands in the results; ``kind``: the
    counter it goes to.
    """

    kind: str
    result: Result
    params_digest: bytes
    question: bytes
    billed: bool
    lines: int = 1


@dataclass
class Examiner:
    """Answers the lines of one batch, in any order.

    ``finished``: the share of lines (drawn by seed) that is done; the others end as ``rest``.
    ``earlier``: how often a question was sent in earlier batches. ``ask``: where the message comes
    from when not from here (upstream).
    """

    seed: int
    terms: Terms
    conditions: list[faults.BatchFaults | faults.LineFaults]
    finished: float = 1.0
    rest: str = "expired"
    earlier: Mapping[bytes, int] = field(default_factory=dict)
    ask: Callable[[str, dict[str, Any]], Result | None] | None = None
    cache: tokens.PromptCache = field(default_factory=tokens.PromptCache)

    def __post_init__(self) -> None:
        self._selectors = [
            faults.Selector(fault, self.seed)
            for fault in self.conditions
            if isinstance(fault, faults.LineFault)
        ]
        self._strange = any(isinstance(fault, faults.UnknownFields) for fault in self.conditions)
        self._key = f"{self.seed}:finished".encode()

    def outcome(self, line: Line) -> Outcome:
        raw = bytes(line.params)
        params = _decoded(raw)
        turn = asking_turn(params)
        question = digest16(_canonical(turn, raw))
        struck = [
            selector.fault
            for selector in self._selectors
            if selector(line.custom_id, raw, question, self.earlier.get(question, 0))
        ]
        result = self._result(line.custom_id, params, question, struck)
        if self._strange:
            result = {**result, **UNKNOWN_FIELD}
        kind = result["type"]
        return Outcome(
            kind=kind,
            result=result,
            params_digest=digest16(_canonical(params, raw)),
            question=question,
            billed=kind == "succeeded" and not _is_unbilled(struck),
            lines=_how_often(struck),
        )

    def _result(
        self, custom_id: str, params: Any, question: bytes, struck: list[faults.LineFaults]
    ) -> Result:
        if (
            self.finished < 1.0
            and faults.draw(question + custom_id.encode(), self._key) >= self.finished
        ):
            return {"type": self.rest}
        for fault in struck:
            if result := _made_by(fault, custom_id):
                return result
        if self.ask is not None:
            return self.ask(custom_id, params) or {"type": self.rest}
        try:
            if error := why_errs(params, self.terms):
                return errored(error, custom_id)
            message = self._message(custom_id, params, question)
        except Exception:  # a line of a shape nobody thought of must not hold up its batch
            logger.exception("the emulator could not answer %s", custom_id)
            return errored(INTERNAL_ERROR, custom_id)
        return {"type": "succeeded", "message": _spoilt(message, struck)}

    def _message(self, custom_id: str, params: dict[str, Any], question: bytes) -> dict[str, Any]:
        name: str = params["model"]
        model = MODELS[ALIASES.get(name, name)]
        content, stop_reason = self._content(params, question)
        content, output_tokens, cut = _within(content, params["max_tokens"], model)
        return {
            "model": f"emulator:{model.id}",
            "id": derived_id("msg_emulator_", self.seed, custom_id, question),
            "type": "message",
            "role": "assistant",
            "content": content,
            "container": None,
            "stop_reason": "max_tokens" if cut else stop_reason,
            "stop_sequence": None,
            "stop_details": None,
            "usage": {
                **self.cache.usage(params, model),
                "output_tokens": output_tokens,
                "service_tier": "batch",
                "inference_geo": "not_available",
                "emulated": True,
            },
            "diagnostics": None,
        }

    def _content(self, params: dict[str, Any], question: bytes) -> tuple[list[dict[str, Any]], str]:
        record = Record(text_of(asking_turn(params)), self.seed)
        hints = text_of(params.get("system"))
        blocks = (
            [THINKING]
            if (params.get("thinking") or {}).get("type") in ("enabled", "adaptive")
            else []
        )
        tool = _forced_tool(params)
        if tool is not None:
            schema = tool.get("input_schema") or {"type": "object"}
            call = {
                "type": "tool_use",
                "id": derived_id("toolu_emulator_", self.seed, question),
                "name": tool.get("name"),
                "input": answer(schema, record, hints),
                "caller": {"type": "direct"},
            }
            return [*blocks, call], "tool_use"
        schema = ((params.get("output_config") or {}).get("format") or {}).get("schema")
        if schema is None:
            return [*blocks, {"type": "text", "text": extract(record)}], "end_turn"
        value = msgspec.json.encode(answer(schema, record, hints)).decode()
        return [*blocks, {"type": "text", "text": value}], "end_turn"


THINKING = {"type": "thinking", "thinking": "", "signature": "emulator"}


def digest16(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def errored(error: LineError, custom_id: str) -> Result:
    """An errored result; double nesting and null request_id as captured on the wire."""
    request_id = derived_id("workerreq_", custom_id) if error.at_execution else None
    inner = {
        "details": {"error_visibility": "user_facing"},
        "type": error.type,
        "message": error.message,
    }
    return {"type": "errored", "error": {"type": "error", "error": inner, "request_id": request_id}}


def _decoded(raw: bytes) -> Any:
    """The params; None (which errs) for what passed the create's look but cannot be decoded."""
    try:
        return decode_params(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _canonical(value: Any, raw: bytes) -> bytes:
    """Canonical JSON; the bytes as they came for what has none (integers beyond 64 bits)."""
    try:
        return canonical(value)
    except (OverflowError, UnicodeError, RecursionError):
        return raw


def _forced_tool(params: dict[str, Any]) -> dict[str, Any] | None:
    choice, tools = params.get("tool_choice") or {}, params.get("tools") or []
    if choice.get("type") == "any" and tools:
        return tools[0]
    if choice.get("type") == "tool":
        return next((tool for tool in tools if tool.get("name") == choice.get("name")), None)
    return None


def _within(
    content: list[dict[str, Any]], max_tokens: int, model: Model
) -> tuple[list[dict[str, Any]], int, bool]:
    """The content, cut where it reaches ``max_tokens``; its tokens; whether it was cut."""
    last = content[-1]
    text = last["text"] if last["type"] == "text" else msgspec.json.encode(last["input"]).decode()
    used = tokens.of_text(text, model)
    if used <= max_tokens or last["type"] != "text":
        return content, used, False
    share = len(text) * max_tokens // used
    return [*content[:-1], {"type": "text", "text": text[:share]}], max_tokens, True


def _made_by(fault: faults.LineFaults, custom_id: str) -> Result | None:
    """The result that a fault makes instead of an answer; None when it only changes one."""
    match fault:
        case faults.ExpireLines():
            return {"type": "expired"}
        case faults.CancelLines():
            return {"type": "canceled"}
        case faults.ErrorLines():
            return errored(LineError(fault.message, fault.type, at_execution=True), custom_id)
        case _:
            return None


def _spoilt(message: dict[str, Any], struck: list[faults.LineFaults]) -> dict[str, Any]:
    """The message with the first content fault, and thinking before it when that struck too."""
    for fault in struck:
        changed = _spoil(message, fault)
        if changed is not message:
            message = changed
            break
    if any(isinstance(fault, faults.ThinkingFirst) for fault in struck):
        message = {**message, "content": [THINKING, *message["content"]]}
    return message


def _spoil(message: dict[str, Any], fault: faults.LineFaults) -> dict[str, Any]:
    match fault:
        case faults.RefuseLines():
            details = {
                "type": "refusal",
                "category": None,
                "explanation": "Refused by the fault plan.",
            }
            return {**message, "content": [], "stop_reason": "refusal", "stop_details": details}
        case faults.TruncateLines():
            cut = _with_text(message, lambda text: text[: len(text) // 2])
            return {**cut, "stop_reason": "max_tokens"}
        case faults.InvalidLines():
            return _with_text(message, _INVALID[fault.how])
        case _:
            return message


_INVALID: dict[str, Callable[[str], str]] = {
    "not_json": lambda text: text[:-1] + ",",
    "wrong_shape": lambda text: '{"unexpected":' + msgspec.json.encode(text).decode() + "}",
    "fenced": lambda text: f"```json\n{text}\n```",
    "prose": lambda text: (
        f"Here is the answer you asked for:\n\n{text}\n\nLet me know if it helps."
    ),
    "empty": lambda _: "",
}


def _with_text(message: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    content = [
        {**block, "text": change(block["text"])} if block["type"] == "text" else block
        for block in message["content"]
    ]
    return {**message, "content": content}


def _is_unbilled(struck: list[faults.LineFaults]) -> bool:
    return any(isinstance(fault, faults.MissingLines) and not fault.billed for fault in struck)


def _how_often(struck: list[faults.LineFaults]) -> int:
    if any(isinstance(fault, faults.MissingLines) for fault in struck):
        return 0
    return 2 if any(isinstance(fault, faults.DuplicateLines) for fault in struck) else 1
