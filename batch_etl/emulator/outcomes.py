"""A request line becomes its result line(s). Pure: the same line, seed and conditions give the
same bytes.

The first line of a task is composed step by step: decoded, checked, answered (``messages``), spoilt
by the line faults of the batch's conditions. Later ones that differ from it in their text alone,
and that no fault strikes, are printed from what was learned of it (``stencils``): same bytes, a
fraction of the time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from batch_etl.emulator import faults
from batch_etl.emulator.frames import params_digest
from batch_etl.emulator.lines import LineError, Terms, why_errs
from batch_etl.emulator.messages import answer_to, model_of, thinking_block
from batch_etl.emulator.prompt_cache import PromptCache
from batch_etl.emulator.records import asking_turn
from batch_etl.emulator.shared import canonical, decode_params, digest16
from batch_etl.emulator.stencils import Stencils
from batch_etl.emulator.wire import derived_id

logger = logging.getLogger("batch_etl.emulator")

INTERNAL_ERROR = LineError("Internal server error", "api_error", at_execution=True)
UNKNOWN_FIELD = {"x_emulator_unknown": {"nobody": ["has", "heard", "of", "this"]}}
Result = dict[str, Any]


class Outcome(NamedTuple):
    """What became of one line. ``line``: its result line; ``lines``: how often that stands in the
    results; ``kind``: the counter it goes to.
    """

    kind: str
    line: bytes
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
    cache: PromptCache = field(default_factory=PromptCache)

    def __post_init__(self) -> None:
        self._selectors = [
            faults.Selector(fault, self.seed)
            for fault in self.conditions
            if isinstance(fault, faults.LineFault)
        ]
        self._strange = any(isinstance(fault, faults.UnknownFields) for fault in self.conditions)
        self._key = f"{self.seed}:finished".encode()
        self._stencils = Stencils(self.seed, self.cache)

    def outcome(self, custom_id: str, raw: bytes) -> Outcome:
        """``raw``: the line's params as they came."""
        return self._printed(custom_id, raw) or self._composed(custom_id, raw)

    def _printed(self, custom_id: str, raw: bytes) -> Outcome | None:
        """The outcome of a line like one before it that nothing special happens to."""
        found = self._stencils.find(raw)
        if found is None:
            return None
        stencil, text = found
        text_json = msgspec.json.encode(text)
        question = digest16(text_json)
        if self._struck(custom_id, raw, question) or not self._is_finished(custom_id, question):
            return None
        line = stencil.line(custom_id, text, question)
        if line is None:
            return None
        return Outcome(
            "succeeded", line, stencil.frame.params_digest(text_json), question, billed=True
        )

    def _composed(self, custom_id: str, raw: bytes) -> Outcome:
        params = _decoded(raw)
        question = digest16(_canonical(asking_turn(params), raw))
        struck = self._struck(custom_id, raw, question)
        result = self._result(custom_id, params, question, struck)
        kind = result["type"]
        if self._strange:
            result = {**result, **UNKNOWN_FIELD}
        elif kind == "succeeded" and self.ask is None:
            self._stencils.learn(raw, params, result["message"]["usage"])
        return Outcome(
            kind=kind,
            line=msgspec.json.encode({"custom_id": custom_id, "result": result}) + b"\n",
            params_digest=params_digest(params, raw),
            question=question,
            billed=kind == "succeeded" and not _is_unbilled(struck),
            lines=_how_often(struck),
        )

    def _struck(self, custom_id: str, raw: bytes, question: bytes) -> list[faults.LineFaults]:
        if not self._selectors:
            return []
        earlier = self.earlier.get(question, 0)
        return [
            selector.fault
            for selector in self._selectors
            if selector(custom_id, raw, question, earlier)
        ]

    def _is_finished(self, custom_id: str, question: bytes) -> bool:
        if self.finished >= 1.0:
            return True
        return faults.draw(question + custom_id.encode(), self._key) < self.finished

    def _result(
        self, custom_id: str, params: Any, question: bytes, struck: list[faults.LineFaults]
    ) -> Result:
        if not self._is_finished(custom_id, question):
            return {"type": self.rest}
        for fault in struck:
            if result := _made_by(fault, custom_id):
                return result
        if self.ask is not None:
            return self.ask(custom_id, params) or {"type": self.rest}
        try:
            if error := why_errs(params, self.terms):
                return errored(error, custom_id)
            message_id = derived_id("msg_emulator_", self.seed, custom_id, question)
            usage = self.cache.usage(params, model_of(params))
            message = answer_to(params, message_id, question, self.seed, usage)
        except Exception:  # a line of a shape nobody thought of must not hold up its batch
            logger.exception("the emulator could not answer %s", custom_id)
            return errored(INTERNAL_ERROR, custom_id)
        return {"type": "succeeded", "message": _spoilt(message, struck)}


def errored(error: LineError, custom_id: str) -> Result:
    """An errored result; double nesting and null request_id as captured on the wire."""
    request_id = derived_id("workerreq_", custom_id) if error.at_execution else None
    details = {"error_visibility": "user_facing"}
    inner = {
        "details": details if error.code is None else {**details, "error_code": error.code},
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
        message = {**message, "content": [thinking_block(""), *message["content"]]}
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
