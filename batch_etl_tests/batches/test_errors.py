"""The error tree: its words, its two flags, and that the drawing above it is true."""

from __future__ import annotations

import pytest

from batch_etl.batches import errors
from batch_etl.errors import BatchEtlError, ConfigError

CALL = "POST https://api.anthropic.com/v1/messages/batches"


def reply(kind: type[errors.ErrorReply], status: int, **facts: object) -> errors.ErrorReply:
    return kind(CALL, status=status, error_type="some_error", message="Some words", **facts)  # pyright: ignore[reportArgumentType]


ONE_OF_EACH: list[errors.ApiError] = [
    reply(errors.InvalidRequest, 400),
    reply(errors.Unauthorized, 401),
    reply(errors.SpendLimit, 402),
    reply(errors.PermissionDenied, 403),
    reply(errors.NotFound, 404),
    reply(errors.Busy, 409),
    reply(errors.TooLarge, 413),
    reply(errors.RateLimited, 429),
    reply(errors.Overloaded, 529),
    reply(errors.ServerFault, 500),
    errors.NotTheApi(CALL, status=200, received="an HTML page ('Log in')", request_id=None),
    errors.Redirected(CALL, status=308, location="https://b.example", request_id=None),
    errors.Unreachable(CALL, address="127.0.0.1:8000", reason="Connection refused"),
    errors.TimedOut(CALL, timeout_s=600),
    errors.Interrupted(CALL, reason="Connection reset by peer"),
]


def drawn(kind: str) -> tuple[str, str]:
    """(transient, definite) as the drawing on top of the module says."""
    line = next(line for line in (errors.__doc__ or "").splitlines() if f"── {kind} " in f"{line} ")
    words = line.replace("by status", "by-status").split()
    return words[-2], words[-1]


@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda e: type(e).__name__)
def test_the_flags_are_as_drawn(error: errors.ApiError) -> None:
    transient, definite = drawn(type(error).__name__)
    assert error.transient == (transient == "yes")
    assert definite == "by-status" or error.definite == (definite == "yes")
    assert not error.may_have_been_accepted


@pytest.mark.parametrize("error", ONE_OF_EACH, ids=lambda e: type(e).__name__)
def test_every_message_names_the_call_and_ends_with_what_to_do(error: errors.ApiError) -> None:
    assert isinstance(error, BatchEtlError)
    assert CALL in str(error)
    assert str(error).endswith(".")
    assert "  " not in str(error)
    assert ".." not in str(error)
    assert "None" not in str(error)


def test_an_error_reply_reads_as_one_sentence_of_facts_and_one_of_advice() -> None:
    error = reply(errors.RateLimited, 429, request_id="req_1", retry_after_s=30.0)
    assert str(error) == (
        f"{CALL} answered 429 some_error: Some words. (request-id req_1) Try again in 30 s; if it"
        " lasts, send fewer calls or ask for a higher rate limit."
    )


def test_vendor_facts_are_kept() -> None:
    error = reply(
        errors.SpendLimit, 429, request_id="req_1", error_code="enforced_spend_limit_reached"
    )
    assert (error.status, error.error_type, error.message) == (429, "some_error", "Some words")
    assert (error.request_id, error.error_code) == ("req_1", "enforced_spend_limit_reached")
    assert "enforced_spend_limit_reached" in str(error)


@pytest.mark.parametrize(
    ("kind", "should_retry", "transient"),
    [
        (errors.ServerFault, False, False),
        (errors.InvalidRequest, True, True),
        (errors.RateLimited, None, True),
        (errors.SpendLimit, True, False),
    ],
)
def test_the_servers_x_should_retry_decides_except_for_spend_limits(
    kind: type[errors.ErrorReply], should_retry: bool | None, transient: bool
) -> None:
    assert reply(kind, 400, should_retry=should_retry).transient is transient


@pytest.mark.parametrize(
    ("status", "definite"), [(200, False), (201, False), (403, True), (404, True), (502, False)]
)
def test_a_foreign_answer_is_definite_only_when_it_is_a_refusal(
    status: int, definite: bool
) -> None:
    error = errors.NotTheApi(CALL, status=status, received="an HTML page", request_id=None)
    assert error.definite is definite


@pytest.mark.parametrize(
    ("reason", "advice"),
    [
        ("[Errno 111] Connection refused", "Nothing listens there"),
        ("[Errno -2] Name or service not known", "Check the host name"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "SSL_CERT_FILE"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number", "does not speak TLS"),
        ("no answer within 5 s", "Check the network"),
    ],
)
def test_an_unreachable_server_gets_the_advice_that_fits(reason: str, advice: str) -> None:
    error = errors.Unreachable(CALL, address="host:443", reason=reason)
    assert "host:443" in str(error)
    assert advice in str(error)


def test_an_ambiguous_create_keeps_the_facts_of_its_cause() -> None:
    cause = reply(errors.ServerFault, 500, request_id="req_1", retry_after_s=5.0)
    error = errors.AmbiguousCreate(cause, handed_bytes=1_000, size_bytes=1_000)
    assert (error.status, error.request_id, error.retry_after_s) == (500, "req_1", 5.0)
    assert error.may_have_been_accepted
    assert not error.transient
    assert not error.definite
    assert "searched for it" in str(error)
    assert str(cause) in str(error)


@pytest.mark.parametrize(("handed_bytes", "whole"), [(0, False), (999, False), (1_000, True)])
def test_a_body_is_whole_when_all_of_it_was_handed_over(handed_bytes: int, whole: bool) -> None:
    cause = errors.Interrupted(CALL, reason="reset")
    error = errors.AmbiguousCreate(cause, handed_bytes=handed_bytes, size_bytes=1_000)
    assert error.body_complete is whole


def test_an_emulator_in_claudes_place_is_a_mistake_of_the_settings() -> None:
    error = errors.EmulatorRefused("http://127.0.0.1:8000", "batch-etl 0.1.0")
    assert isinstance(error, ConfigError)
    assert "http://127.0.0.1:8000" in str(error)
