"""Each fault of the plan strikes where, when and as often as the plan says."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from batch_etl.emulator.server import running
from batch_etl.emulator.settings import Pace
from batch_etl_tests.emulator.driver import Driver, asking_for_json, lines


def text_of(result: dict[str, Any]) -> str:
    return "".join(b["text"] for b in result["message"]["content"] if b["type"] == "text")


def test_a_dropped_create_was_accepted_all_the_same(driver: Driver) -> None:
    driver.faults({"kind": "drop"})
    with pytest.raises(httpx.RemoteProtocolError):
        driver.post(lines(3))
    assert driver.status()["creates_accepted"] == 1
    driver.create(lines(3))
    status = driver.status()
    assert (status["creates_accepted"], status["requests_received"]) == (2, 6)
    assert status["requests_billed_twice"] == 3
    assert status["faults_injected"] == {"drop": 1}
    assert status["http_replies"]["create dropped"] == 1


def test_a_create_dropped_before_it_took_effect_left_nothing(driver: Driver) -> None:
    driver.faults({"kind": "drop", "when": "before"})
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)):
        driver.post(lines(3))
    assert driver.status()["creates_accepted"] == 0


def test_a_duplicate_create_makes_two_batches_and_names_the_second(driver: Driver) -> None:
    driver.faults({"kind": "duplicate_create"})
    made = driver.create(lines(4))
    page = driver.http.get("/v1/messages/batches").json()["data"]
    assert page[0]["id"] == made
    for batch in page:
        assert len(driver.results(batch["id"])) == 4
    status = driver.status()
    assert (status["requests_billed"], status["requests_billed_twice"]) == (8, 4)


ERRORS: list[tuple[dict[str, Any], int, str | None, dict[str, str]]] = [
    ({"kind": "error"}, 500, "api_error", {}),
    ({"kind": "error", "status": 529}, 529, "overloaded_error", {}),
    ({"kind": "error", "status": 429}, 429, "rate_limit_error", {}),
    (
        {"kind": "error", "status": 429, "retry_after_s": 1.5},
        429,
        "rate_limit_error",
        {"retry-after": "1.5"},
    ),
    (
        {"kind": "error", "status": 400, "type": "billing_error", "should_retry": False},
        400,
        "billing_error",
        {"x-should-retry": "false"},
    ),
    ({"kind": "html", "route": "create"}, 502, None, {"content-type": "text/html; charset=utf-8"}),
    ({"kind": "edge_413"}, 413, None, {}),
]


@pytest.mark.parametrize(("fault", "status", "kind", "headers"), ERRORS)
def test_an_error_comes_in_place_of_the_create(
    driver: Driver, fault: dict[str, Any], status: int, kind: str | None, headers: dict[str, str]
) -> None:
    driver.faults(fault)
    reply = driver.post(lines(1))
    assert reply.status_code == status
    if kind is not None:
        assert reply.json()["error"]["type"] == kind
    for name, value in headers.items():
        assert reply.headers[name] == value
    assert driver.status()["creates_accepted"] == 0
    driver.create(lines(1))


def test_an_error_after_accept_hides_an_accepted_create(driver: Driver) -> None:
    driver.faults({"kind": "error", "route": "create", "when": "after", "status": 500})
    assert driver.post(lines(2)).status_code == 500
    assert driver.status()["creates_accepted"] == 1


def test_an_error_code_is_in_the_details(driver: Driver) -> None:
    driver.faults({"kind": "error", "status": 429, "error_code": "enforced_spend_limit_reached"})
    details = driver.post(lines(1)).json()["error"]["details"]
    assert details == {"error_code": "enforced_spend_limit_reached"}


def test_times_and_skip_say_which_calls_are_struck(driver: Driver) -> None:
    driver.faults({"kind": "error", "route": "list", "times": 2, "skip": 1})
    codes = [driver.http.get("/v1/messages/batches").status_code for _ in range(5)]
    assert codes == [200, 500, 500, 200, 200]


@pytest.mark.parametrize(("route", "path"), [("retrieve", ""), ("results", "/results")])
def test_a_fresh_batch_can_be_unknown_for_a_while(driver: Driver, route: str, path: str) -> None:
    driver.faults({"kind": "error", "status": 404, "route": route, "times": 2, "per_batch": True})
    for _ in range(2):
        address = f"/v1/messages/batches/{driver.create(lines(1))}{path}"
        codes: list[int] = []
        while len(codes) < 3 or codes[-1] == 404:
            codes.append(driver.http.get(address).status_code)
        assert codes[:2] == [404, 404]
        assert codes[-1] == 200


def test_a_result_stream_can_break_or_end_short(driver: Driver) -> None:
    made = driver.create(lines(40))
    whole = driver.results(made)
    driver.faults({"kind": "cut", "fraction": 0.5}, {"kind": "cut", "clean": True})
    address = f"/v1/messages/batches/{made}/results"
    with pytest.raises(httpx.RemoteProtocolError):
        driver.http.get(address)
    short = driver.http.get(address)
    assert short.status_code == 200
    assert 0 < len(short.text.splitlines()) < 40
    assert driver.results(made) == whole


def test_a_torn_create_reply_is_no_json(driver: Driver) -> None:
    driver.faults({"kind": "cut", "route": "create", "clean": True})
    reply = driver.post(lines(1))
    assert reply.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        reply.json()
    assert driver.status()["creates_accepted"] == 1


def test_results_can_come_without_content_type_and_slowly(driver: Driver) -> None:
    made = driver.create(lines(1))
    driver.ended(made)
    driver.faults({"kind": "no_content_type"}, {"kind": "slow", "route": "results", "delay_s": 0.1})
    reply = driver.http.get(f"/v1/messages/batches/{made}/results")
    assert reply.status_code == 200
    assert "content-type" not in reply.headers
    assert driver.status()["faults_injected"] == {"no_content_type": 1, "slow": 1}


LINES: list[tuple[str, dict[str, Any], str]] = [
    ("expire_lines", {}, "expired"),
    ("cancel_lines", {}, "canceled"),
    ("error_lines", {}, "errored"),
]


@pytest.mark.parametrize(("kind", "settings", "became"), LINES)
def test_a_share_of_the_lines_is_struck(
    driver: Driver, kind: str, settings: dict[str, Any], became: str
) -> None:
    driver.faults({"kind": kind, "fraction": 0.1, **settings})
    made = driver.create(lines(300))
    struck = [name for name, found in driver.kinds(made).items() if found == became]
    assert 15 <= len(struck) <= 45
    counts = driver.retrieve(made)["request_counts"]
    assert (counts[became], counts["succeeded"]) == (len(struck), 300 - len(struck))
    assert driver.status()["requests_billed"] == 300 - len(struck)


def test_lines_are_chosen_by_id_regex_or_what_they_say(driver: Driver) -> None:
    driver.faults(
        {"kind": "expire_lines", "ids": ["r1", "r4"]},
        {"kind": "cancel_lines", "regex": "^r2$"},
        {"kind": "error_lines", "match": "Text of r3\\.", "type": "overloaded_error"},
    )
    found = driver.run(lines(6))
    kinds = {name: result["type"] for name, result in found.items()}
    assert kinds == {
        "r0": "succeeded",
        "r1": "expired",
        "r2": "canceled",
        "r3": "errored",
        "r4": "expired",
        "r5": "succeeded",
    }
    error = found["r3"]["error"]
    assert error["error"]["type"] == "overloaded_error"
    assert error["request_id"].startswith("workerreq_")


def test_a_first_attempt_fault_spares_the_second(driver: Driver) -> None:
    driver.faults({"kind": "error_lines", "fraction": 0.5, "attempts": 1})
    first = driver.kinds(driver.create(lines(40)))
    failed = [name for name, kind in first.items() if kind == "errored"]
    assert 5 < len(failed) < 35
    again = [request for request in lines(40) if request["custom_id"] in failed]
    second = driver.kinds(driver.create(again))
    assert set(second.values()) == {"succeeded"}
    assert driver.status()["requests_billed"] == 40
    assert driver.status()["requests_billed_twice"] == 0


def test_missing_lines_are_neither_in_the_results_nor_on_the_bill(driver: Driver) -> None:
    driver.faults({"kind": "missing_lines", "ids": ["r0"]})
    made = driver.create(lines(3))
    assert sorted(driver.by_id(made)) == ["r1", "r2"]
    assert driver.retrieve(made)["request_counts"]["succeeded"] == 3
    assert driver.status()["requests_billed"] == 2


def test_duplicate_lines_come_twice_and_are_billed_once(driver: Driver) -> None:
    driver.faults({"kind": "duplicate_lines", "ids": ["r0"]})
    found = driver.results(driver.create(lines(3)))
    assert sorted(entry["custom_id"] for entry in found) == ["r0", "r0", "r1", "r2"]
    assert driver.status()["requests_billed"] == 3


def test_refused_truncated_and_invalid_answers_are_succeeded_lines(driver: Driver) -> None:
    driver.faults(
        {"kind": "refuse_lines", "ids": ["r0"]},
        {"kind": "truncate_lines", "ids": ["r1"]},
        {"kind": "invalid_lines", "ids": ["r2"], "how": "not_json"},
        {"kind": "invalid_lines", "ids": ["r3"], "how": "wrong_shape"},
        {"kind": "invalid_lines", "ids": ["r4"], "how": "fenced"},
        {"kind": "thinking_first", "ids": ["r5"]},
    )
    found = driver.run(lines(7, **asking_for_json()))
    assert {result["type"] for result in found.values()} == {"succeeded"}
    assert found["r0"]["message"]["stop_reason"] == "refusal"
    assert found["r0"]["message"]["stop_details"]["type"] == "refusal"
    assert found["r1"]["message"]["stop_reason"] == "max_tokens"
    for name in ("r1", "r2", "r4"):
        with pytest.raises(json.JSONDecodeError):
            json.loads(text_of(found[name]))
    assert set(json.loads(text_of(found["r3"]))) == {"unexpected"}
    assert [block["type"] for block in found["r5"]["message"]["content"]] == ["thinking", "text"]
    assert set(json.loads(text_of(found["r6"]))) == {"label", "reason"}
    assert driver.status()["requests_billed"] == 7


def test_unknown_fields_turn_up_everywhere(driver: Driver) -> None:
    driver.faults({"kind": "unknown_fields"})
    made = driver.create(lines(1))
    assert "x_emulator_unknown" in driver.retrieve(made)
    assert "x_emulator_unknown" in driver.by_id(made)["r0"]


def test_a_stuck_batch_expires_after_24_hours() -> None:
    with running(pace=Pace(end_s=1)) as url, Driver(url) as driver:
        driver.faults({"kind": "stuck", "finished": 0.5, "times": 1})
        stuck, other = driver.create(lines(200)), driver.create(lines(2))
        driver.clock(advance_s=23 * 3600)
        assert driver.retrieve(stuck)["processing_status"] == "in_progress"
        assert driver.retrieve(other)["processing_status"] == "ended"
        driver.clock(advance_s=3600)
        batch = driver.retrieve(stuck)
        assert batch["ended_at"] == batch["expires_at"]
        counts = batch["request_counts"]
        assert counts["expired"] + counts["succeeded"] == 200
        assert 60 < counts["expired"] < 140


def test_a_partial_cancel_keeps_what_was_done() -> None:
    with running(pace=Pace(end_s=3600, cancel_s=25)) as url, Driver(url) as driver:
        driver.faults({"kind": "partial_cancel", "finished": 0.5})
        made = driver.create(lines(200))
        driver.http.post(f"/v1/messages/batches/{made}/cancel", json={})
        driver.clock(advance_s=25)
        counts = driver.retrieve(made)["request_counts"]
        assert counts["canceled"] + counts["succeeded"] == 200
        assert 60 < counts["canceled"] < 140
        assert driver.status()["requests_billed"] == counts["succeeded"]


def test_archived_results_are_gone_and_the_batch_says_when(driver: Driver) -> None:
    driver.faults({"kind": "archived", "times": 1})
    gone, there = driver.create(lines(1)), driver.create(lines(1))
    batch = driver.ended(gone)
    assert batch["archived_at"] is not None
    assert batch["results_url"] is None
    assert driver.http.get(f"/v1/messages/batches/{gone}/results").status_code == 404
    driver.results(there)


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"faults": [{"kind": "dorp"}]}, "dorp"),
        ({"faults": [{"kind": "drop", "tines": 1}]}, "tines"),
        ({"faults": [{"kind": "cut", "fraction": 2}]}, "$.faults[0].fraction"),
        ({"faults": [{"kind": "expire_lines", "regex": "("}]}, "$.faults[0].regex"),
        ({"fault": []}, "fault"),
    ],
)
def test_a_plan_that_cannot_be_used_is_refused_with_the_place(
    shared: Driver, plan: dict[str, Any], said: str
) -> None:
    reply = shared.http.put("/_emulator/faults", json=plan)
    assert reply.status_code == 400
    assert said in reply.json()["error"]["message"]


def test_a_deleted_plan_strikes_no_more(driver: Driver) -> None:
    driver.faults({"kind": "error", "route": "*", "times": None})
    assert driver.post(lines(1)).status_code == 500
    assert driver.http.get("/_emulator/faults").json()["faults"][0]["kind"] == "error"
    driver.http.delete("/_emulator/faults")
    driver.create(lines(1))
