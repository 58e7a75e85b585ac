"""A real Messages endpoint behind the batch API, played by a small server."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from batch_etl.emulator.server import running
from batch_etl.emulator.settings import Settings
from batch_etl.emulator.upstream import Journal
from batch_etl_tests.emulator.driver import SCHEMA, Driver, line, lines, params, process
from batch_etl_tests.emulator.messages_server import Messages, serving
from batch_etl_tests.emulator.pictures import image, image_block, pdf, pdf_block, text_block


@pytest.fixture
def messages() -> Messages:
    return Messages()


@pytest.fixture
def upstream(messages: Messages) -> Iterator[str]:
    with serving(messages) as url:
        yield url


def settings(folder: Path, upstream: str, **more: Any) -> Settings:
    return Settings(folder, upstream_url=upstream, **more)


def test_a_batch_is_made_of_the_upstream_s_answers(
    tmp_path: Path, messages: Messages, upstream: str
) -> None:
    messages.crowd = threading.Barrier(3)
    versioned = f"{upstream}/v1/"
    chosen = settings(tmp_path, versioned, upstream_key="up-key", upstream_concurrency=3)
    with running(tmp_path, settings=chosen) as url, Driver(url) as driver:
        made = driver.create(lines(20, model="open-1"))
        found = driver.by_id(made)
        assert driver.status()["requests_billed"] == 20
    assert found["r7"]["message"]["content"][0]["text"] == "Text of r7."
    assert found["r7"]["message"]["model"] == "open-1"
    assert messages.asked.total() == 20
    assert messages.most_at_once == 3
    assert messages.headers["x-api-key"] == "up-key"
    assert messages.headers["authorization"] == "Bearer up-key"
    assert messages.headers["anthropic-version"] == "2023-06-01"


def test_passing_errors_are_tried_again_and_lasting_ones_err_the_line(
    tmp_path: Path, messages: Messages, upstream: str
) -> None:
    refusal = b'{"type":"error","error":{"type":"invalid_request_error","message":"no such thing"}}'
    messages.faults = {
        "busy": (2, 429, b"{}"),
        "broken": (1, 500, b"<html>"),
        "wrong": (99, 400, refusal),
        "html": (99, 200, b"<html>"),
    }
    with running(tmp_path, settings=settings(tmp_path, upstream)) as url, Driver(url) as driver:
        found = driver.run([line(name, name) for name in ("busy", "broken", "wrong", "html")])
    assert found["busy"]["type"] == found["broken"]["type"] == "succeeded"
    error = found["wrong"]["error"]["error"]
    assert (error["type"], error["message"]) == ("invalid_request_error", "no such thing")
    assert found["html"]["error"]["error"]["type"] == "api_error"
    assert messages.asked == {"busy": 3, "broken": 2, "wrong": 1, "html": 1}


def kinds_of_requests() -> dict[str, dict[str, Any]]:
    """One request of each kind, its last text being its name."""

    def saying(name: str, *blocks: dict[str, Any], **changes: Any) -> dict[str, Any]:
        turn = {"role": "user", "content": [*blocks, text_block(name)]}
        return params(**{"model": "open-1", "messages": [turn], **changes})

    tools = [{"name": "label", "input_schema": SCHEMA}]
    call = {"type": "tool_use", "id": "toolu_1", "name": "label", "input": {"n": 1}}
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [image_block(image())]}
    earlier = [{"role": "user", "content": "x"}, {"role": "assistant", "content": [call]}]
    last = {"role": "user", "content": [result, text_block("results")]}
    mark = {"cache_control": {"type": "ephemeral"}}
    asked = {
        "image": saying("image", image_block(image())),
        "pdf": saying("pdf", pdf_block(pdf("page one"))),
        "url": saying("url", {"type": "image", "source": {"type": "url", "url": "http://x/y"}}),
        "tools": saying("tools", tools=tools, tool_choice={"type": "tool", "name": "label"}),
        "results": saying("", messages=[*earlier, last], tools=tools),
        "system": saying(
            "system", system=[{**text_block("Be brief."), **mark}], stop_sequences=["#"]
        ),
        "thinking": saying(
            "thinking", thinking={"type": "adaptive"}, output_config={"effort": "low"}
        ),
    }
    return {
        name: {**given, "unknown_to_us": {"\u00e9": [1, None]}} for name, given in asked.items()
    }


def test_every_kind_of_request_is_forwarded_as_it_came(
    tmp_path: Path, messages: Messages, upstream: str
) -> None:
    asked = kinds_of_requests()
    call = {"type": "tool_use", "id": "toolu_9", "name": "label", "input": {"label": "safe"}}
    used = {"type": "message", "model": "open-1", "content": [call], "stop_reason": "tool_use"}
    messages.answers = {"tools": used}
    requests = [{"custom_id": name, "params": given} for name, given in asked.items()]
    with running(tmp_path, settings=settings(tmp_path, upstream)) as url, Driver(url) as driver:
        found = driver.run(requests)
    assert messages.paths == {"/v1/messages"}
    assert {name: json.loads(body) for name, body in messages.bodies.items()} == asked
    assert {result["type"] for result in found.values()} == {"succeeded"}
    assert found["tools"]["message"] == used


def test_what_no_batch_takes_is_not_forwarded(
    tmp_path: Path, messages: Messages, upstream: str
) -> None:
    with running(tmp_path, settings=settings(tmp_path, upstream)) as url, Driver(url) as driver:
        found = driver.run([line("a", stream=True), line("b", stream=False)])
    assert found["a"]["error"]["error"]["message"] == (
        '"stream=True" is not supported in the Message Batches API'
    )
    assert found["b"]["type"] == "succeeded"
    assert messages.asked.total() == 1


def test_answers_that_are_no_messages_err_their_lines(
    tmp_path: Path, messages: Messages, upstream: str
) -> None:
    gone = b'{"error": {"message": "model not found", "type": null}}'
    plain = b'{"error": "out of memory"}'
    messages.answers = {"odd": {"object": "chat.completion"}}
    messages.faults = {"gone": (9, 404, gone), "plain": (9, 400, plain), "moved": (9, 302, b"")}
    with running(tmp_path, settings=settings(tmp_path, upstream)) as url, Driver(url) as driver:
        found = driver.run([line(name, name) for name in ("odd", "gone", "plain", "moved")])
    errors = {name: result["error"]["error"] for name, result in found.items()}
    assert errors["odd"]["message"] == "The upstream's answer is not a message."
    assert (errors["gone"]["type"], errors["gone"]["message"]) == (
        "not_found_error",
        "model not found",
    )
    assert errors["plain"]["message"] == "out of memory"
    assert errors["moved"]["message"] == "HTTP 302"


def test_an_upstream_that_cannot_be_reached_errs_its_lines(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        nowhere = f"http://127.0.0.1:{held.getsockname()[1]}"
    chosen = settings(tmp_path, nowhere, upstream_tries=2)
    with running(tmp_path, settings=chosen) as url, Driver(url) as driver:
        found = driver.run(lines(2))
    for result in found.values():
        error = result["error"]["error"]
        assert (error["type"], error["message"]) == (
            "api_error",
            "The upstream could not be reached (ConnectError).",
        )


def test_a_restart_asks_only_for_what_is_missing(
    tmp_path: Path, messages: Messages, upstream: str
) -> None:
    messages.gate = threading.Event()
    options = ("--upstream", upstream, "--upstream-concurrency", "2")
    with process(tmp_path, *options) as first:
        made = first.driver.create(lines(30))
        messages.wait_for(7)
        assert first.driver.retrieve(made)["processing_status"] == "in_progress"
        first.child.kill()
        first.child.wait()
    messages.gate.set()
    with process(tmp_path, *options) as second:
        found = second.driver.by_id(made)
    assert len(found) == 30
    assert {result["type"] for result in found.values()} == {"succeeded"}
    assert messages.asked.total() <= 32


def test_a_cancel_keeps_what_was_answered(
    tmp_path: Path, messages: Messages, upstream: str
) -> None:
    messages.gate = threading.Event()
    chosen = settings(tmp_path, upstream, upstream_concurrency=2)
    with running(tmp_path, settings=chosen) as url, Driver(url) as driver:
        made = driver.create(lines(30))
        messages.wait_for(7)
        driver.http.post(f"/v1/messages/batches/{made}/cancel")
        counts = driver.ended(made)["request_counts"]
        messages.gate.set()
        assert counts["succeeded"] + counts["canceled"] == 30
        assert counts["succeeded"] >= 5
        kinds = list(driver.kinds(made).values())
        assert kinds.count("canceled") == counts["canceled"]


def test_what_the_upstream_has_not_answered_in_a_day_expires(
    tmp_path: Path, messages: Messages, upstream: str
) -> None:
    messages.gate = threading.Event()
    chosen = settings(tmp_path, upstream, upstream_concurrency=2)
    with running(tmp_path, settings=chosen) as url, Driver(url) as driver:
        made = driver.create(lines(30))
        messages.wait_for(7)
        driver.clock(advance_s=24 * 3600)
        batch = driver.ended(made)
        messages.gate.set()
    counts = batch["request_counts"]
    assert batch["ended_at"] == batch["expires_at"]
    assert counts["succeeded"] >= 5
    assert counts["succeeded"] + counts["expired"] == 30


def test_a_torn_last_answer_is_forgotten(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "answers.jsonl")
    with journal.appending():
        journal.add("a", {"type": "succeeded"})
    with open(tmp_path / "answers.jsonl", "ab") as file:
        file.write(b'{"custom_id":"b","resu')
    again = Journal(tmp_path / "answers.jsonl")
    assert ("a" in again, "b" in again) == (True, False)
    with again.appending():
        again.add("c", {"type": "errored"})
    last = Journal(tmp_path / "answers.jsonl")
    assert (last.find("a"), last.find("b")) == ({"type": "succeeded"}, None)
    assert last.find("c") == {"type": "errored"}
