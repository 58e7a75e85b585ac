"""What the SDK does not show: bytes, headers, routes, and bodies that no SDK would send."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from batch_etl.emulator.server import running
from batch_etl.emulator.settings import Pace, Settings
from batch_etl_tests.emulator.driver import HEADERS, Driver, line, lines

FIELDS = [
    "id", "type", "processing_status", "request_counts", "ended_at", "created_at", "expires_at",
    "archived_at", "cancel_initiated_at", "results_url",
]  # fmt: skip


def test_a_batch_has_all_ten_fields_in_the_order_of_the_wire(driver: Driver) -> None:
    batch = json.loads(driver.post(lines(1)).text)
    assert list(batch) == FIELDS
    names = ["processing", "succeeded", "errored", "canceled", "expired"]
    assert list(batch["request_counts"]) == names
    assert len(batch["created_at"]) == len("2026-06-02T15:03:37.719714+00:00")
    assert batch["created_at"].endswith("+00:00")


def test_every_reply_has_an_id_a_date_and_says_that_it_is_emulated(shared: Driver) -> None:
    paths = ("/v1/messages/batches", "/v1/nothing", "/_emulator/status", "//v1/messages/batches")
    for path in paths:
        reply = shared.http.get(f"{shared.url}{path}")
        assert reply.headers["request-id"].startswith("req_")
        assert reply.headers["x-batch-etl-emulator"] == "1"
        assert reply.headers["date"].endswith("GMT")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "//v1/messages/batches", 404),
        ("POST", "//v1/messages/batches", 404),
        ("GET", "/v1/messages/batches/", 404),
        ("GET", "/v1/messages/batches/msgbatch_none", 404),
        ("GET", "/v1/messages/batches/msgbatch_none/results", 404),
        ("POST", "/v1/messages/batches/msgbatch_none/cancel", 404),
        ("DELETE", "/v1/messages/batches/msgbatch_none", 404),
        ("POST", "/v1/messages", 404),
        ("PUT", "/v1/messages/batches", 405),
        ("GET", "/v1/messages/batches?limit=0", 400),
        ("GET", "/v1/messages/batches?limit=1001", 400),
        ("GET", "/v1/messages/batches?limit=x", 400),
        ("GET", "/v1/messages/batches?after_id=none", 400),
        ("GET", "/v1/messages/batches?limit=1000&beta=true", 200),
        ("HEAD", "/v1/messages/batches", 200),
        ("GET", "/_emulator/nothing", 404),
        ("PUT", "/_emulator/faults", 400),
    ],
)
def test_a_wrong_call_gets_an_envelope(shared: Driver, method: str, path: str, status: int) -> None:
    reply = shared.http.request(method, f"{shared.url}{path}")
    assert reply.status_code == status
    if status != 200:
        body = reply.json()
        assert (body["type"], set(body)) == ("error", {"type", "error", "request_id"})
        assert body["request_id"] == reply.headers["request-id"]


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        ({"x-api-key": "k", "anthropic-version": "2023-06-01"}, 200, ""),
        ({"authorization": "Bearer k", "anthropic-version": "2026-10-21"}, 200, ""),
        ({"anthropic-version": "2023-06-01"}, 401, "API key is invalid."),
        ({"x-api-key": "", "anthropic-version": "2023-06-01"}, 401, "API key is invalid."),
        ({"authorization": "Basic k", "anthropic-version": "2023-06-01"}, 401, "API key"),
        ({"x-api-key": "invalid", "anthropic-version": "2023-06-01"}, 401, "API key is invalid."),
        ({"x-api-key": "k"}, 400, "anthropic-version: header is required"),
        ({"x-api-key": "k", "anthropic-version": "2020-01-01"}, 400, "not a valid version"),
    ],
)
def test_key_and_version_are_checked(
    shared_url: str, headers: dict[str, str], status: int, message: str
) -> None:
    reply = httpx.get(f"{shared_url}/v1/messages/batches", headers=headers)
    assert reply.status_code == status
    assert message in reply.text


def test_only_the_configured_key_is_let_in(tmp_path: Path) -> None:
    with running(tmp_path, settings=Settings(tmp_path, api_key="mine")) as url:
        address = f"{url}/v1/messages/batches"
        assert httpx.get(address, headers=HEADERS).status_code == 401
        assert httpx.get(address, headers={**HEADERS, "x-api-key": "mine"}).status_code == 200


BAD_BODIES: list[tuple[bytes, str]] = [
    (b"", "The request body is not valid JSON: "),
    (b"{", "The request body is not valid JSON: "),
    (b'{"requests": [}', "The request body is not valid JSON: "),
    (b'{"requests": [{"custom_id": "a", "params": {"x": \xff}}]}', "not valid JSON"),
    (b"[]", "Input should be a valid dictionary"),
    (b"{}", "requests: Field required"),
    (b'{"requests": {}}', "requests: Input should be a valid list"),
    (b'{"requests": [1]}', "requests.0: Input should be a valid dictionary"),
    (b'{"requests": [{"custom_id": "a"}]}', "requests.0.params: Field required"),
    (b'{"requests": [{"custom_id": 5, "params": {}}]}', "requests.0.custom_id: Input should be a"),
    (
        b'{"requests": [{"custom_id": "a", "params": {}, "more": 1}]}',
        "requests.0.more: Extra inputs are not permitted",
    ),
    (
        b'{"requests": [{"custom_id": "a", "params": {}}], "more": 1}',
        "more: Extra inputs are not permitted",
    ),
    (b'{"requests": [{"custom_id": "", "params": {}}]}', "requests.0.custom_id: String should ma"),
    (b"[" * 100_000, "valid dictionary"),
]


@pytest.mark.parametrize(("body", "message"), BAD_BODIES)
def test_a_bad_body_is_refused_with_its_reason(shared: Driver, body: bytes, message: str) -> None:
    reply = shared.http.post("/v1/messages/batches", content=body)
    assert reply.status_code == 400
    assert message in reply.json()["error"]["message"]


def test_too_many_requests_are_refused(tmp_path: Path) -> None:
    with (
        running(tmp_path, settings=Settings(tmp_path, max_requests=3)) as url,
        Driver(url) as driver,
    ):
        reply = driver.post(lines(4))
        assert reply.status_code == 400
        message = "requests: List should have at most 3 items after validation, not 4"
        assert reply.json()["error"]["message"] == message


def test_a_poll_of_an_open_batch_hints_when_to_come_again() -> None:
    with running(pace=Pace(end_s=3600, retry_after_s=10)) as url, Driver(url) as driver:
        made = driver.create(lines(1))
        reply = driver.http.get(f"/v1/messages/batches/{made}")
        assert (reply.status_code, reply.headers["retry-after"]) == (200, "10")
        driver.clock(advance_s=3601)
        reply = driver.http.get(f"/v1/messages/batches/{made}")
        assert reply.json()["processing_status"] == "ended"
        assert "retry-after" not in reply.headers


def test_results_are_jsonl_in_an_order_of_their_own(driver: Driver) -> None:
    made = driver.create(lines(50))
    driver.ended(made)
    reply = driver.http.get(f"/v1/messages/batches/{made}/results")
    assert reply.headers["content-type"] == "application/x-jsonl"
    disposition = f"attachment; filename*=utf-8''{made}_results.jsonl"
    assert reply.headers["content-disposition"] == disposition
    texts = reply.text.split("\n")
    assert texts.pop() == ""
    assert all(texts)
    order = [json.loads(text)["custom_id"] for text in texts]
    assert sorted(order) == sorted(f"r{n}" for n in range(50))
    assert order != [f"r{n}" for n in range(50)]


def test_pretty_printed_params_stay_one_line_each(driver: Driver) -> None:
    body = json.dumps({"requests": [line("a", 'Two\nlines, "quoted" \u00e9 \U0001f600')]}, indent=2)
    made = driver.http.post("/v1/messages/batches", content=body).json()["id"]
    assert driver.kinds(made) == {"a": "succeeded"}
    received = driver.http.get(f"/_emulator/batches/{made}/received").text.splitlines()
    assert json.loads(received[1]) == line("a", 'Two\nlines, "quoted" \u00e9 \U0001f600')


def test_what_was_received_hides_the_key(driver: Driver) -> None:
    made = driver.create(lines(2))
    text = driver.http.get(f"/_emulator/batches/{made}/received").text
    head, *rest = (json.loads(part) for part in text.splitlines())
    assert "test-key" not in text
    assert head["headers"]["x-api-key"] == "(redacted)"
    assert head["version"] == "2023-06-01"
    assert rest == lines(2)


def test_a_compressed_body_is_refused_by_name(shared: Driver) -> None:
    reply = shared.post(lines(1), headers={"content-encoding": "gzip"})
    assert reply.status_code == 400
    assert reply.json()["error"]["details"]["error_code"] == "request_body_encoding_unsupported"


@pytest.mark.parametrize(
    "raw", [b"garbage\r\n\r\n", b"POST /v1/messages/batches HTTP/1.1\r\ncontent-length: -5\r\n\r\n"]
)
def test_bytes_that_are_no_http_do_not_hurt(shared: Driver, raw: bytes) -> None:
    host, port = shared.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(raw)
        connection.recv(100)
    assert shared.status()["emulator"] == "batch_etl"


def test_a_caller_that_leaves_in_the_middle_of_a_create_leaves_nothing(driver: Driver) -> None:
    host, port = driver.url.removeprefix("http://").split(":")
    head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        start = (
            f"POST /v1/messages/batches HTTP/1.1\r\nhost: x\r\n{head}content-length: 1000\r\n\r\n"
        )
        connection.sendall(start.encode() + b'{"requests": [')
    driver.create(lines(1))
    assert driver.status()["creates_accepted"] == 1


def answers(url: str, requests: Any) -> dict[str, Any]:
    with Driver(url) as driver:
        found = driver.run(requests)
    return {name: result["message"]["content"] for name, result in found.items()}


def test_equal_questions_get_equal_answers_in_any_emulator_of_that_seed() -> None:
    from batch_etl_tests.emulator.driver import asking_for_json

    requests = lines(20, **asking_for_json())
    with running() as first, running() as second:
        assert answers(first, requests) == answers(second, requests[::-1])
