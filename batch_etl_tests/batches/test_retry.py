"""Retry by cause: what is free and may pass is sent again, what was paid for never."""

from __future__ import annotations

import pytest

from batch_etl.batches.outcome import BILLED, KINDS
from batch_etl.batches.retry import reusable, worth_another_try


@pytest.mark.parametrize(
    ("kind", "error_type", "again"),
    [
        ("Expired", None, True),
        ("Canceled", None, True),
        ("Missing", None, True),
        ("Errored", "api_error", True),
        ("Errored", "overloaded_error", True),
        ("Errored", "rate_limit_error", True),
        ("Errored", "timeout_error", True),
        ("Errored", "invalid_request_error", False),
        ("Errored", "not_found_error", False),
        ("Errored", "permission_error", False),
        ("Errored", "billing_error", False),
        ("Errored", "request_too_large", False),
        ("Errored", "a_type_nobody_has_heard_of", False),
        ("Errored", None, False),
        ("Succeeded", None, False),
        ("Invalid", None, False),
        ("Truncated", None, False),
        ("Refused", None, False),
    ],
)
def test_a_request_is_sent_again_by_the_cause_of_its_outcome(kind, error_type, again):
    assert worth_another_try(kind, error_type) is again


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_paid_for_answers_its_key_for_good_and_is_never_sent_again(kind):
    assert reusable(kind) is (kind in BILLED)
    assert not (reusable(kind) and worth_another_try(kind, "api_error"))
