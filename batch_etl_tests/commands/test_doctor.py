"""``batch-etl doctor`` looks at the URLs of alerts, sends nothing, and shows no part of them."""

from __future__ import annotations

import pytest

from batch_etl import environment
from batch_etl.commands.doctor import _alerts

SECRET = "T0KEN-MARKED"


@pytest.mark.parametrize(
    ("urls", "state", "detail"),
    [
        ("", "ok", "none are sent; BATCH_ETL_ALERT_URLS is not set"),
        (f"json://127.0.0.1:9/{SECRET} mailto://u:{SECRET}@example.com", "ok", "sent to JSON, E"),
        (
            f"json://127.0.0.1:9/{SECRET} nonsense://{SECRET}",
            "fail",
            "apprise cannot use URL 2 of BATCH_ETL_ALERT_URLS: correct it",
        ),
    ],
)
def test_the_urls_of_alerts_are_looked_at_by_number(urls: str, state: str, detail: str) -> None:
    found = _alerts(environment.read({"BATCH_ETL_ALERT_URLS": urls}))
    assert (found.check, found.state) == ("alerts", state)
    assert found.detail.startswith(detail)
    assert SECRET not in found.detail
