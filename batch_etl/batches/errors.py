"""The engine's errors: what failed, whether it may pass by itself, and what to do next.

    BatchEtlError
    ├── ConfigError
    │   └── EmulatorRefused      an emulator answered where Claude was asked for
    ├── RenderError              a record that the prompt cannot be rendered for
    ├── LedgerError              the ledger cannot be used
    │   └── LeaseLost            another process advances this transform now      yes
    ├── BudgetExceeded           what was to be sent costs more than a budget has left
    ├── PriceUnknown             a budget is set, and nobody knows what the model costs
    ├── BatchGone                a batch that was sent is not at the API any more
    ├── CreateUndecided          whether a batch was created cannot be found out any more
    ├── PayloadBroken            the bytes of a create call are not those that were planned
    └── ApiError                 a call to the API failed                     transient  definite
        ├── ErrorReply           it answered with an error
        │   ├── InvalidRequest   400, 422 and every other 4xx                  no         yes
        │   ├── Unauthorized     401                                           no         yes
        │   ├── SpendLimit       402; 400 and 429 of the spend-limit kind      no         yes
        │   ├── PermissionDenied 403                                           no         yes
        │   ├── NotFound         404                                           no         yes
        │   ├── Busy             408, 409                                      yes        yes
        │   ├── TooLarge         413                                           no         yes
        │   ├── RateLimited      429                                           yes        yes
        │   ├── Overloaded       529                                           yes        yes
        │   └── ServerFault      every other 5xx                               yes        no
        ├── NotTheApi            HTML or foreign JSON: wrong URL, or a proxy   no         by status
        ├── Redirected           3xx, never followed                           no         yes
        ├── Unreachable          the connection never opened                   yes        yes
        ├── TimedOut             no answer in time                             yes        no
        ├── Interrupted          connection lost, torn reply                   yes        no
        └── AmbiguousCreate      a create that may have been accepted          no         no

``transient``: the same call may succeed later with nothing changed. ``definite``: the server did
not carry the call out, for certain. A create that fails raises either a definite error or
:class:`AmbiguousCreate`, nothing in between; the latter may already be billed, so it must be looked
for in the list of batches and never be sent again blindly.

Constructors take facts and build the sentence. Status and error type are the vendor's; the
vendor's request-id is kept for its support. No error holds a key or a header.
"""

from __future__ import annotations

from typing import ClassVar

from batch_etl.errors import BatchEtlError, ConfigError

__all__ = [
    "AmbiguousCreate",
    "ApiError",
    "BatchGone",
    "BudgetExceeded",
    "Busy",
    "CreateUndecided",
    "EmulatorRefused",
    "ErrorReply",
    "Interrupted",
    "InvalidRequest",
    "LeaseLost",
    "LedgerError",
    "NotFound",
    "NotTheApi",
    "Overloaded",
    "PayloadBroken",
    "PermissionDenied",
    "PriceUnknown",
    "RateLimited",
    "Redirected",
    "RenderError",
    "ServerFault",
    "SpendLimit",
    "TimedOut",
    "TooLarge",
    "Unauthorized",
    "Unreachable",
]


class EmulatorRefused(ConfigError):
    """The server says that it is an emulator, and the endpoint chosen is the real API."""

    def __init__(self, base_url: str, emulator: str) -> None:
        self.base_url = base_url
        self.emulator = emulator
        super().__init__(
            f"The server at {base_url} is an emulator (it says: {emulator!r}), but this endpoint is"
            " meant to be Claude. Choose the endpoint 'emulator', or point the base URL at the API."
        )


class BudgetExceeded(BatchEtlError):
    """What was to be sent would commit more dollars than a budget has left; it was not sent.

    ``sentence`` is made by :func:`batch_etl.batches.budget.refusal`, which has the facts.
    """

    def __init__(self, sentence: str, *, budget: str) -> None:
        self.budget = budget
        super().__init__(sentence)


class PriceUnknown(BatchEtlError):
    """A budget is set for requests to a model whose price nobody knows."""

    def __init__(self, pipeline: str, claude_model: str, budget: str) -> None:
        self.claude_model = claude_model
        super().__init__(
            f"pipeline {pipeline!r}: the price of {claude_model!r} is not known, so {budget} cannot"
            " hold. Nothing was sent. State the price in the file of BATCH_ETL_PRICES, or remove"
            " the budget."
        )


class BatchGone(BatchEtlError):
    """A batch that was sent, or its results, cannot be had any more; a person has to decide."""

    def __init__(self, batch_id: str, requests: int, why: str) -> None:
        self.batch_id = batch_id
        super().__init__(
            f"batch {batch_id} ({requests:,} requests) {why}. If the key is another workspace's,"
            " set the right one and run again. Otherwise decide what becomes of its requests:"
            f" `batch-etl resolve {batch_id} --buy-again` sends them again (and pays again for"
            " what had run), `--give-up` sends their records to review."
        )


class CreateUndecided(BatchEtlError):
    """A create was never answered, and the batch that may be its own proves nothing any more."""

    def __init__(self, token: str, requests: int, candidate: str) -> None:
        self.token = token
        super().__init__(
            f"the create call of batch {token} ({requests:,} requests) was never answered;"
            f" {candidate} may be that batch, but its results are no longer kept at the API or"
            f" hold no line, so it cannot be told. Decide: `batch-etl resolve {token} --buy-again`"
            " sends the requests (perhaps for the second time), `--give-up` sends their records to"
            " review."
        )


class PayloadBroken(BatchEtlError):
    """A payload yielded other bytes than it promised; the server cannot have read a whole body."""

    def __init__(self, promised_bytes: int, yielded_bytes: int) -> None:
        self.promised_bytes = promised_bytes
        self.yielded_bytes = yielded_bytes
        super().__init__(
            f"The payload was to be {promised_bytes:,} bytes and came to {yielded_bytes:,}: its"
            " file was changed or cut after it was planned. No batch was created; render it again."
        )


class ApiError(BatchEtlError):
    """A call to the API that failed; ``call`` is its method and URL."""

    definite: bool = False
    """The server did not carry the call out, for certain."""

    may_have_been_accepted: bool = False
    """Only of a create, and only :class:`AmbiguousCreate`: there may be a batch, and a bill."""

    def __init__(
        self,
        sentence: str,
        *,
        call: str,
        status: int | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.call = call
        self.status = status
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        super().__init__(sentence)


class ErrorReply(ApiError):
    """The API answered with an error.

    ``error_type``, ``error_code`` and ``message`` are the vendor's (docs/batches-api.md,
    section 3); ``retry_after_s`` is its ``retry-after``. ``should_retry`` is its
    ``x-should-retry``, which outweighs what the status alone would say.
    """

    definite = True
    advice: ClassVar[str] = ""
    heeds_should_retry: ClassVar[bool] = True

    def __init__(
        self,
        call: str,
        *,
        status: int,
        error_type: str | None,
        message: str,
        request_id: str | None = None,
        error_code: str | None = None,
        retry_after_s: float | None = None,
        should_retry: bool | None = None,
    ) -> None:
        self.error_type = error_type
        self.error_code = error_code
        self.message = message
        self.should_retry = should_retry
        if should_retry is not None and self.heeds_should_retry:
            self.transient = should_retry
        label = " ".join(str(part) for part in (status, error_type, error_code) if part)
        said = message if message.endswith((".", "!", "?")) else f"{message}."
        wait = "in a while" if retry_after_s is None else f"in {retry_after_s:g} s"
        super().__init__(
            f"{call} answered {label}: {said}{_traced(request_id)} {self.advice.format(wait=wait)}",
            call=call,
            status=status,
            request_id=request_id,
            retry_after_s=retry_after_s,
        )


def _traced(request_id: str | None) -> str:
    return f" (request-id {request_id})" if request_id else ""


class InvalidRequest(ErrorReply):
    advice = "The same request will be refused again: mend what the message names."


class Unauthorized(ErrorReply):
    advice = "Check that the API key is whole, not revoked, and meant for this server."


class SpendLimit(ErrorReply):
    """Credit or a spend limit is used up: neither waiting a minute nor another try helps."""

    heeds_should_retry = False
    advice = "Raise the limit or add credit in the Console; it is not tried again by itself."


class PermissionDenied(ErrorReply):
    advice = "Use a key of a workspace that may do this, or have the permission granted."


class NotFound(ErrorReply):
    advice = (
        "Check the batch id, and that the key belongs to the workspace that created the batch;"
        " results are kept for 29 days."
    )


class Busy(ErrorReply):
    """408 or 409: refused for the moment."""

    transient = True
    advice = "It is worth another try in a moment."


class TooLarge(ErrorReply):
    advice = "Send smaller batches: lower the limit of bytes per batch."


class RateLimited(ErrorReply):
    """Too many calls, or too many requests in the queue; ``retry_after_s`` is None if not said."""

    transient = True
    advice = "Try again {wait}; if it lasts, send fewer calls or ask for a higher rate limit."


class Overloaded(ErrorReply):
    transient = True
    advice = "The API is overloaded for everybody: try again in a minute."


class ServerFault(ErrorReply):
    """A fault on the server's side, or of a gateway before it."""

    transient = True
    definite = False
    advice = "The fault is on the server's side: try again later, and see status.claude.com."


class NotTheApi(ApiError):
    """Something answered, and not in the API's words: a wrong base URL, a proxy, a login page."""

    def __init__(self, call: str, *, status: int, received: str, request_id: str | None) -> None:
        self.received = received
        self.definite = 300 <= status < 500
        super().__init__(
            f"{call} answered {status} with {received}, which is not the Message Batches API."
            f"{_traced(request_id)} Check the base URL (without /v1), and whether a proxy, a"
            " firewall or a login page answers in its place.",
            call=call,
            status=status,
            request_id=request_id,
        )


class Redirected(ApiError):
    """The server points elsewhere; the key is never carried there."""

    def __init__(self, call: str, *, status: int, location: str, request_id: str | None) -> None:
        self.location = location
        self.definite = status != 303  # "see other" may follow a POST that was carried out
        super().__init__(
            f"{call} was redirected ({status}) to {location}.{_traced(request_id)} Redirects are"
            " not followed, because the API key would go along: set the base URL to where the API"
            " really is.",
            call=call,
            status=status,
            request_id=request_id,
        )


class Unreachable(ApiError):
    """The connection never opened: nothing was sent."""

    transient = True
    definite = True

    def __init__(self, call: str, *, address: str, reason: str) -> None:
        self.address = address
        super().__init__(
            f"{call}: no connection to {address} ({reason}); nothing was sent. {_remedy(reason)}",
            call=call,
        )


def _remedy(reason: str) -> str:
    text = reason.lower()
    if "certificate" in text:
        return "If a proxy or an own authority signs here, name its bundle in SSL_CERT_FILE."
    if "ssl" in text or "tls" in text:
        return "The server does not speak TLS there: check the base URL's scheme and port."
    if "refused" in text:
        return "Nothing listens there: start the server (batch-etl emulator), or mend the base URL."
    if "name" in text or "address" in text:
        return "Check the host name in the base URL, and DNS."
    return "Check the network, the proxy settings and the base URL."


class TimedOut(ApiError):
    """The request was sent, or half sent, and the server stayed silent for too long."""

    transient = True

    def __init__(self, call: str, *, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        super().__init__(
            f"{call}: the server was silent for {timeout_s:g} s. It may be slow or stuck: try"
            " again, or raise the read timeout.",
            call=call,
        )


class Interrupted(ApiError):
    """The connection was lost after sending began, or the reply ended before its end."""

    transient = True

    def __init__(
        self,
        call: str,
        *,
        reason: str,
        received_bytes: int | None = None,
        request_id: str | None = None,
    ) -> None:
        self.received_bytes = received_bytes
        got = "" if received_bytes is None else f" after {received_bytes:,} bytes of the reply"
        why = reason.rstrip(".")
        super().__init__(
            f"{call} was interrupted{got}: {why}.{_traced(request_id)} It is worth another try.",
            call=call,
            request_id=request_id,
        )


class AmbiguousCreate(ApiError):
    """A create whose fate is unknown: the batch may exist and be billed. ``cause`` says why.

    ``handed_bytes`` is what of ``size_bytes`` was handed to the network. Fewer than all of them
    means that the server cannot have read a whole body (:attr:`body_complete`).
    """

    may_have_been_accepted = True

    def __init__(self, cause: ApiError, *, handed_bytes: int, size_bytes: int) -> None:
        self.cause = cause
        self.handed_bytes = handed_bytes
        self.size_bytes = size_bytes
        super().__init__(
            f"It is not known whether a batch was created ({handed_bytes:,} of {size_bytes:,} bytes"
            f" were sent): {cause} Do not send it again before the list of batches has been"
            " searched for it: it may exist already, and be billed.",
            call=cause.call,
            status=cause.status,
            request_id=cause.request_id,
            retry_after_s=cause.retry_after_s,
        )

    @property
    def body_complete(self) -> bool:
        """The whole body was handed to the network, so the server may have read it all."""
        return self.handed_bytes >= self.size_bytes


class RenderError(BatchEtlError):
    """A prompt that cannot be rendered; what was sent before this record stays bought."""

    def __init__(self, where: str, record_id: str | None, problem: str) -> None:
        self.where = where
        self.record_id = record_id
        record = f", record {record_id!r}" if record_id is not None else ""
        stop = "" if problem.endswith((".", "?", "!")) else "."
        super().__init__(f"{where}{record}: {problem}{stop} Correct the prompt, or add the field.")


class LedgerError(BatchEtlError):
    """The ledger cannot be used, or a row is not in the status it should be in."""


class LeaseLost(LedgerError):
    """Another process advances this transform now; this one must stop and may not write."""

    transient = True

    def __init__(self, transform_id: str) -> None:
        self.transform_id = transform_id
        super().__init__(
            f"the lease on transform {transform_id} is held by another process; that one goes on"
        )
