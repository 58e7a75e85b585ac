"""Replies are judged without ever raising anything but the engine's own errors."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_etl.batches import errors, reply
from batch_etl.batches.wire import MessageBatch

CALL = "GET http://127.0.0.1/v1/messages/batches"

bodies = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=100).map(str.encode),
    st.sampled_from(
        [
            b'{"error":{"message":null,"type":5,"details":[]}}',
            b'{"error":"text"}',
            b'{"type":"error","error":{"type":"api_error","message":"{wait} {0}"}}',
            b"[1,2]",
            b"null",
            b'"\xff"',
        ]
    ),
)


@given(
    st.integers(300, 599),
    bodies,
    st.dictionaries(
        st.sampled_from(
            ["retry-after", "retry-after-ms", "date", "content-type", "location", "x-should-retry"]
        ),
        st.text(max_size=30),
    ),
)
def test_every_failing_reply_is_one_error_with_its_status(
    status: int, body: bytes, headers: dict[str, str]
) -> None:
    error = reply.failure(CALL, status=status, headers=headers, body=body)
    assert error.status == status
    assert str(error)
    assert error.definite or status in (303, *range(500, 600))


@given(bodies)
def test_every_body_that_is_no_batch_is_one_of_two_errors(body: bytes) -> None:
    with pytest.raises((errors.Interrupted, errors.NotTheApi)):
        reply.decoded(MessageBatch, body, call=CALL, status=200, headers={})


@pytest.mark.parametrize(
    ("body", "content_type", "described"),
    [
        (
            b"<html><title> 502\nBad Gateway</title>",
            "text/html",
            "an HTML page ('502 Bad Gateway')",
        ),
        (b"<!DOCTYPE html><p>Hi</p>", "", "an HTML page ('<!DOCTYPE html><p>Hi</p>')"),
        (b"upstream gone", "text/plain; charset=utf-8", "'upstream gone' (text/plain)"),
        (b"", "", "an empty body (no content type)"),
    ],
)
def test_a_foreign_body_is_described_by_kind_and_beginning(
    body: bytes, content_type: str, described: str
) -> None:
    assert reply.excerpt(body, content_type) == described


def test_an_excerpt_is_short() -> None:
    assert len(reply.excerpt(b"x" * 10**6, "text/plain")) < 250


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "10"}, 10.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "1500", "retry-after": "10"}, 1.5),
        ({"retry-after": "0"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "Tue, 02 Jun 2026 15:00:10 GMT"}, None),
        (
            {
                "retry-after": "Tue, 02 Jun 2026 15:00:10 GMT",
                "date": "Tue, 02 Jun 2026 15:00:00 GMT",
            },
            10.0,
        ),
        ({}, None),
    ],
)
def test_a_wait_is_read_from_either_header_in_either_form(
    headers: dict[str, str], wait_s: float | None
) -> None:
    assert reply.retry_after_s(headers) == wait_s


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("Tue, 02 Jun 2026 15:00:00 GMT", datetime(2026, 6, 2, 15, tzinfo=UTC)),
        ("Tue, 02 Jun 2026 15:00:00 -0000", datetime(2026, 6, 2, 15, tzinfo=UTC)),
        ("Tue, 02 Jun 2026 17:00:00 +0200", datetime(2026, 6, 2, 15, tzinfo=UTC)),
        ("yesterday", None),
        (None, None),
    ],
)
def test_an_http_date_is_read_in_utc(text: str | None, moment: datetime | None) -> None:
    assert reply.http_date(text) == moment
