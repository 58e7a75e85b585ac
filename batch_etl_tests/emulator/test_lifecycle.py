"""What becomes of a batch as the clock goes, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from batch_etl.emulator.server import running
from batch_etl.emulator.settings import Pace, Settings
from batch_etl_tests.emulator.driver import Driver, line, lines

HOUR_S = 3600


def test_counts_stay_in_processing_until_the_end() -> None:
    with running(pace=Pace(end_s=100)) as url, Driver(url) as driver:
        made = driver.create(lines(10))
        driver.clock(advance_s=50)
        assert driver.retrieve(made)["request_counts"]["processing"] == 10
        driver.pace(gradual=True, end_s=100)
        counts = driver.retrieve(made)["request_counts"]
        assert counts["processing"] + counts["succeeded"] == 10
        assert counts["succeeded"] == 5
        driver.clock(advance_s=51)
        assert driver.retrieve(made)["request_counts"]["succeeded"] == 10


def test_a_batch_slower_than_a_day_expires_in_part() -> None:
    with running(pace=Pace(end_s=48 * HOUR_S)) as url, Driver(url) as driver:
        made = driver.create(lines(200))
        batch = driver.clock(advance_s=24 * HOUR_S) and driver.retrieve(made)
        assert batch["ended_at"] == batch["expires_at"]
        assert 60 < batch["request_counts"]["expired"] < 140
        assert driver.status()["requests_billed"] == batch["request_counts"]["succeeded"]


def test_a_cancel_keeps_the_share_that_time_had_done() -> None:
    with running(pace=Pace(end_s=100, cancel_s=10)) as url, Driver(url) as driver:
        driver.clock(frozen=True)
        made = driver.create(lines(200))
        driver.clock(advance_s=50)
        canceling = driver.http.post(f"/v1/messages/batches/{made}/cancel").json()
        assert canceling["processing_status"] == "canceling"
        again = driver.http.post(f"/v1/messages/batches/{made}/cancel").json()
        assert again["cancel_initiated_at"] == canceling["cancel_initiated_at"]
        refused = driver.http.delete(f"/v1/messages/batches/{made}")
        assert refused.status_code == 400
        driver.clock(advance_s=10)
        counts = driver.retrieve(made)["request_counts"]
        assert counts["succeeded"] + counts["canceled"] == 200
        assert 60 < counts["canceled"] < 140
        ended = driver.http.post(f"/v1/messages/batches/{made}/cancel")
        assert (ended.status_code, ended.json()["processing_status"]) == (200, "ended")


def test_results_are_kept_for_29_days_from_creation(driver: Driver) -> None:
    made = driver.create(lines(1))
    driver.results(made)
    driver.clock(advance_s=29 * 24 * HOUR_S - 60)
    assert driver.retrieve(made)["archived_at"] is None
    driver.clock(advance_s=120)
    batch = driver.retrieve(made)
    assert batch["archived_at"] is not None
    assert batch["results_url"] is None
    assert driver.http.get(f"/v1/messages/batches/{made}/results").status_code == 404


def test_a_new_pace_moves_the_end_of_open_batches() -> None:
    with running(pace=Pace(end_s=1000)) as url, Driver(url) as driver:
        made = driver.create(lines(1))
        driver.pace(end_s=0)
        assert driver.ended(made)["request_counts"]["succeeded"] == 1


def test_the_clock_goes_where_it_is_put_and_stands_when_frozen(driver: Driver) -> None:
    assert driver.clock(to="2031-01-02T03:04:05Z", frozen=True)["frozen"]
    batch = driver.post(lines(1))
    assert batch.json()["created_at"] == "2031-01-02T03:04:05.000000+00:00"
    assert batch.headers["date"] == "Thu, 02 Jan 2031 03:04:05 GMT"
    assert driver.clock(frozen=False)["now"].startswith("2031-01-02T03:04:")


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("clock", {"to": "tomorrow"}),
        ("clock", {"advance": 1}),
        ("clock", {"advance_s": "x"}),
        ("pace", {"end": 1}),
        ("pace", []),
    ],
)
def test_a_wrong_setting_is_refused(shared: Driver, path: str, change: Any) -> None:
    assert shared.http.post(f"/_emulator/{path}", json=change).status_code == 400


def test_only_succeeded_lines_are_billed_and_repeats_are_counted(driver: Driver) -> None:
    requests = [line("a", "same"), line("b", "same"), line("c", "other"), line("d", model="none")]
    driver.run(requests)
    status = driver.status()
    assert status["requests_received"] == 4
    assert (status["requests_billed"], status["requests_billed_twice"]) == (3, 1)
    driver.run([line("z", "other")])
    assert driver.status()["requests_billed_twice"] == 2


def test_the_same_params_in_another_order_are_the_same_purchase(driver: Driver) -> None:
    one = line("a")
    other = {"custom_id": "b", "params": dict(reversed(one["params"].items()))}
    assert list(one["params"]) != list(other["params"])
    driver.run([one, other])
    assert driver.status()["requests_billed_twice"] == 1


def test_a_deleted_batch_stays_on_the_bill(driver: Driver) -> None:
    made = driver.create(lines(2))
    driver.ended(made)
    assert driver.http.delete(f"/v1/messages/batches/{made}").status_code == 200
    status = driver.status()
    assert (status["requests_billed"], status["batches"]["deleted"]) == (2, 1)
    driver.run(lines(2))
    assert driver.status()["requests_billed_twice"] == 2


def test_calls_are_counted_by_route(driver: Driver) -> None:
    made = driver.create(lines(1))
    driver.retrieve(made)
    driver.retrieve(made)
    driver.http.get("/nowhere")
    status = driver.status()
    assert status["http_calls"] == {"create": 1, "retrieve": 2, "unknown": 1}
    assert status["http_replies"]["unknown 404"] == 1


def test_a_bad_line_errs_alone(driver: Driver) -> None:
    odd: list[Any] = [
        {"custom_id": "number", "params": 5},
        {"custom_id": "list", "params": []},
        {"custom_id": "big", "params": {"model": 10**40}},
        line("blocks", "x", messages=[{"role": "user", "content": [5]}]),
        line("schema", output_config={"format": {"type": "json_schema", "schema": {"type": 5}}}),
        line("tools", tools=5, tool_choice={"type": "auto"}),
        line("good"),
    ]
    kinds = {name: result["type"] for name, result in driver.run(odd).items()}
    assert kinds.pop("good") == "succeeded"
    assert set(kinds.values()) == {"errored"}


def test_a_lone_surrogate_in_a_prompt_hurts_nobody(driver: Driver) -> None:
    body = (
        b'{"requests":[{"custom_id":"a","params":{"model":"claude-haiku-4-5","max_tokens":9,'
        b'"messages":[{"role":"user","content":"\\ud800 x"}]}}]}'
    )
    reply = driver.http.post("/v1/messages/batches", content=body)
    if reply.status_code == 200:
        assert set(driver.kinds(reply.json()["id"])) == {"a"}


def test_short_max_tokens_truncate_the_answer(driver: Driver) -> None:
    found = driver.run([line("a", "A rather long sentence about very little. " * 9, max_tokens=5)])
    message = found["a"]["message"]
    assert message["stop_reason"] == "max_tokens"
    assert message["usage"]["output_tokens"] == 5


def test_a_forced_tool_is_called_with_legal_input(driver: Driver) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    tools = [{"name": "count", "input_schema": schema}]
    choice = {"type": "tool", "name": "count"}
    found = driver.run([line("a", "There are 7.", tools=tools, tool_choice=choice)])
    message = found["a"]["message"]
    assert message["stop_reason"] == "tool_use"
    assert message["content"][0]["input"] == {"n": 7}


def test_the_new_version_s_rules_fail_the_create_when_so_switched(tmp_path: Path) -> None:
    settings = Settings(tmp_path, strict_version="create")
    with running(tmp_path, settings=settings) as url, Driver(url) as driver:
        new = {"anthropic-version": "2026-10-21"}
        reply = driver.post([line("a"), line("b", top_p=1)], headers=new)
        assert reply.status_code == 400
        assert "requests.1.params.top_p" in reply.json()["error"]["message"]
        assert driver.post([line("b", top_p=1)]).status_code == 200
