"""The fault plan: what shall go wrong, where, how often, for whom.

A plan is ``{"faults": [...]}``, put with ``PUT /_emulator/faults`` (which replaces the earlier
one), read with GET, removed with DELETE. It is kept with the state, and so is what each fault has
already done. Every fault has a ``kind`` and:

``times``  how often it strikes (null: always).   ``skip``  how many chances it lets pass first.

**Call faults** strike HTTP calls of one ``route`` (create, retrieve, list, cancel, delete,
results, count_tokens, or ``*``; each has its default); ``times`` is 1 unless given, and
``per_batch: true`` counts times and skip for each batch apart. Of one kind only one strikes a
call: the next in the plan gets its chance when the one before it is spent.

=================  ===============================================================================
drop               cut the connection without a reply; ``when``: "after" the call took effect
                   (default) or "before". Default route: create
error              ``status`` (500), ``type``, ``message``, ``retry_after_s``, ``should_retry``,
                   ``error_code``; ``when``: "before" (default) or "after" the call took effect. A
                   404 after create, or after the end, is this on retrieve, or on results
html               a proxy's HTML page with ``status`` (502)
edge_413           the edge's own 413 body, without type and request_id. Default route: create
duplicate_create   the create is accepted twice; the reply names the second batch
cut                the reply (of results, by default) ends after ``fraction`` (0.5) of its bytes;
                   ``clean``: true ends it as if that were all
slow               the reply waits ``delay_s`` (1.0) real seconds
no_content_type    the reply (of results, by default) has no content-type
=================  ===============================================================================

**Batch faults** are taken up by a batch when it is created (``times`` counts batches; null unless
given):

=================  ===============================================================================
stuck              in progress until it expires after 24 h; a ``finished`` share (0.0) of its
                   lines was done by then
partial_cancel     when cancelled, a ``finished`` share (0.5) still succeeds, whatever time passed
archived           results are gone ``after_s`` (0.0) seconds after the end
unknown_fields     batch objects and result lines carry fields nobody has heard of
=================  ===============================================================================

**Line faults** are taken up by a batch too, and strike the lines that are selected: a ``fraction``
(1.0) by a seeded hash of the question, and of those only ``ids`` (a list of custom_ids), those
whose custom_id matches ``regex``, those whose params' JSON matches ``match``. ``attempts: n``
spares a question (the user turn with the record, which repair and retries leave as it was) that
had been sent n times or more in earlier batches. ``seed`` changes the draw. Of several faults the
first in the plan that strikes counts (missing_lines, duplicate_lines and thinking_first come on
top).

=================  ===============================================================================
expire_lines       expired
cancel_lines       canceled
error_lines        errored, with ``type`` (api_error) and ``message``
missing_lines      no line in the results; counted as succeeded, not billed unless ``billed``: true
duplicate_lines    the line comes twice
refuse_lines       succeeded with stop_reason refusal and no text
truncate_lines     half the text, stop_reason max_tokens
invalid_lines      ``how``: not_json (default), wrong_shape, fenced, prose, empty
thinking_first     a thinking block before the text
=================  ===============================================================================
"""

from __future__ import annotations

import hashlib
import re
from typing import Literal

import msgspec

ROUTES = ("create", "retrieve", "list", "cancel", "delete", "results", "count_tokens")
Route = Literal["create", "retrieve", "list", "cancel", "delete", "results", "count_tokens", "*"]
When = Literal["before", "after"]
Share = float


class _Fault(msgspec.Struct, tag_field="kind", kw_only=True, forbid_unknown_fields=True):
    times: int | None = None
    skip: int = 0

    @property
    def kind(self) -> str:
        return str(self.__struct_config__.tag)


class CallFault(_Fault, kw_only=True):
    """Strikes HTTP calls."""

    route: Route = "*"
    times: int | None = 1
    per_batch: bool = False


class Drop(CallFault, tag="drop", kw_only=True):
    route: Route = "create"
    when: When = "after"


class Fail(CallFault, tag="error", kw_only=True):
    status: int = 500
    type: str | None = None
    message: str | None = None
    retry_after_s: float | None = None
    should_retry: bool | None = None
    error_code: str | None = None
    when: When = "before"


class Html(CallFault, tag="html", kw_only=True):
    status: int = 502


class Edge413(CallFault, tag="edge_413", kw_only=True):
    route: Route = "create"


class DuplicateCreate(CallFault, tag="duplicate_create", kw_only=True):
    route: Route = "create"


class Cut(CallFault, tag="cut", kw_only=True):
    route: Route = "results"
    fraction: Share = 0.5
    clean: bool = False


class Slow(CallFault, tag="slow", kw_only=True):
    delay_s: float = 1.0


class NoContentType(CallFault, tag="no_content_type", kw_only=True):
    route: Route = "results"


class BatchFault(_Fault, kw_only=True):
    """Taken up by a batch at its create, about the batch as a whole."""


class Stuck(BatchFault, tag="stuck", kw_only=True):
    finished: Share = 0.0


class PartialCancel(BatchFault, tag="partial_cancel", kw_only=True):
    finished: Share = 0.5


class Archived(BatchFault, tag="archived", kw_only=True):
    after_s: float = 0.0


class UnknownFields(BatchFault, tag="unknown_fields", kw_only=True):
    pass


class LineFault(_Fault, kw_only=True):
    """Taken up by a batch at its create, about some of its lines."""

    fraction: Share = 1.0
    ids: list[str] | None = None
    regex: str | None = None
    match: str | None = None
    attempts: int | None = None
    seed: int = 0


class ExpireLines(LineFault, tag="expire_lines", kw_only=True):
    pass


class CancelLines(LineFault, tag="cancel_lines", kw_only=True):
    pass


class ErrorLines(LineFault, tag="error_lines", kw_only=True):
    type: str = "api_error"
    message: str = "Internal server error"


class MissingLines(LineFault, tag="missing_lines", kw_only=True):
    billed: bool = False


class DuplicateLines(LineFault, tag="duplicate_lines", kw_only=True):
    pass


class RefuseLines(LineFault, tag="refuse_lines", kw_only=True):
    pass


class TruncateLines(LineFault, tag="truncate_lines", kw_only=True):
    pass


class InvalidLines(LineFault, tag="invalid_lines", kw_only=True):
    how: Literal["not_json", "wrong_shape", "fenced", "prose", "empty"] = "not_json"


class ThinkingFirst(LineFault, tag="thinking_first", kw_only=True):
    pass


CallFaults = Drop | Fail | Html | Edge413 | DuplicateCreate | Cut | Slow | NoContentType
BatchFaults = Stuck | PartialCancel | Archived | UnknownFields
LineFaults = (
    ExpireLines
    | CancelLines
    | ErrorLines
    | MissingLines
    | DuplicateLines
    | RefuseLines
    | TruncateLines
    | InvalidLines
    | ThinkingFirst
)
AnyFault = CallFaults | BatchFaults | LineFaults


class Plan(msgspec.Struct, forbid_unknown_fields=True):
    """The faults, and how many chances each has had (by fault's place, and batch when it counts
    per batch).
    """

    faults: list[AnyFault] = []
    chances: dict[str, int] = {}

    def strikes(self, place: int, scope: str = "") -> bool:
        """Take one chance of the fault at ``place``; true when it strikes."""
        fault, key = self.faults[place], f"{place}:{scope}"
        taken = self.chances.get(key, 0)
        if fault.times is not None and taken >= fault.skip + fault.times:
            return False
        self.chances[key] = taken + 1
        return taken >= fault.skip

    def for_call(self, route: str, batch_id: str | None) -> list[CallFaults]:
        """The call faults that strike this call; at most one of each kind."""
        struck: list[CallFaults] = []
        for place, fault in enumerate(self.faults):
            if not isinstance(fault, CallFault) or fault.route not in ("*", route):
                continue
            if any(type(fault) is type(other) for other in struck):
                continue
            if self.strikes(place, (batch_id or "") if fault.per_batch else ""):
                struck.append(fault)
        return struck

    def for_batch(self) -> list[BatchFaults | LineFaults]:
        """The conditions of a batch that is being created."""
        return [
            fault
            for place, fault in enumerate(self.faults)
            if isinstance(fault, (BatchFault, LineFault)) and self.strikes(place)
        ]


def read_plan(text: bytes | str) -> Plan:
    """Raises ValueError with the place of what is wrong."""
    try:
        plan = msgspec.json.decode(text, type=Plan)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    for place, fault in enumerate(plan.faults):
        _check(place, fault)
    return plan


def _check(place: int, fault: AnyFault) -> None:
    for name in ("fraction", "finished"):
        share = getattr(fault, name, 0.0)
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"{name} must lie between 0 and 1 - at `$.faults[{place}].{name}`")
    for name in ("regex", "match"):
        try:
            re.compile(getattr(fault, name, None) or "")
        except re.error as error:
            raise ValueError(f"{name}: {error} - at `$.faults[{place}].{name}`") from None


_conditions = msgspec.json.Decoder(list[BatchFaults | LineFaults])


def read_conditions(text: str) -> list[BatchFaults | LineFaults]:
    return _conditions.decode(text)


class Selector:
    """Which lines a line fault strikes."""

    def __init__(self, fault: LineFaults, seed: int) -> None:
        self.fault = fault
        self._ids = set(fault.ids) if fault.ids is not None else None
        self._regex = re.compile(fault.regex) if fault.regex else None
        self._match = re.compile(fault.match.encode()) if fault.match else None
        self._key = f"{seed}:{fault.seed}:{fault.kind}".encode()

    def __call__(self, custom_id: str, params: bytes, question: bytes, earlier: int) -> bool:
        """``question``: digest of the first turn; ``earlier``: how often it was sent in earlier
        batches.
        """
        fault = self.fault
        return (
            (fault.attempts is None or earlier < fault.attempts)
            and (self._ids is None or custom_id in self._ids)
            and (self._regex is None or self._regex.search(custom_id) is not None)
            and (self._match is None or self._match.search(params) is not None)
            and (fault.fraction >= 1.0 or draw(question, self._key) < fault.fraction)
        )


def draw(what: bytes, key: bytes) -> float:
    """A number in [0, 1) that is the same for the same ``what`` and ``key``."""
    digest = hashlib.blake2b(what, digest_size=8, key=key[:64]).digest()
    return int.from_bytes(digest, "big") / 2**64
