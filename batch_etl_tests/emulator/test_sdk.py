"""The official SDK is the judge: it drives every endpoint, and every create error reaches it as
its own class.
"""

from __future__ import annotations

import time
from typing import Any

import anthropic
import pytest
from anthropic.types.messages import MessageBatch

from batch_etl.emulator.server import running
from batch_etl.emulator.settings import Pace
from batch_etl_tests.emulator.driver import SCHEMA, Driver, asking_for_json, line, lines, sdk
from batch_etl_tests.emulator.pictures import image, image_block


def ended(client: anthropic.Anthropic, batch_id: str) -> MessageBatch:
    while (batch := client.messages.batches.retrieve(batch_id)).processing_status != "ended":
        time.sleep(0.005)
    return batch


def test_a_batch_goes_from_create_to_results(client: anthropic.Anthropic) -> None:
    made = client.messages.batches.create(requests=lines(3, **asking_for_json()))
    assert made.processing_status in ("in_progress", "ended")
    assert made.request_counts.processing == 3
    assert (made.expires_at - made.created_at).total_seconds() == 24 * 3600
    batch = ended(client, made.id)
    assert batch.request_counts.succeeded == 3
    assert batch.results_url is not None
    found = {entry.custom_id: entry.result for entry in client.messages.batches.results(made.id)}
    assert sorted(found) == ["r0", "r1", "r2"]
    for result in found.values():
        assert result.type == "succeeded"
        assert result.message.model == "emulator:claude-haiku-4-5-20251001"
        assert result.message.id.startswith("msg_emulator_")
        assert result.message.usage.service_tier == "batch"
        assert result.message.usage.to_dict()["emulated"] is True


def test_errored_lines_are_typed_by_the_sdk(client: anthropic.Anthropic) -> None:
    made = client.messages.batches.create(requests=[line("a", model="claude-none-9")])
    ended(client, made.id)
    [entry] = client.messages.batches.results(made.id)
    assert entry.result.type == "errored"
    assert entry.result.error.error.type == "not_found_error"
    assert entry.result.error.error.message == "model: claude-none-9"


def test_the_sdk_types_answers_of_every_kind(client: anthropic.Anthropic) -> None:
    tools = [{"name": "label", "input_schema": SCHEMA}]
    asked: dict[str, dict[str, Any]] = {
        "tool": {"tools": tools, "tool_choice": {"type": "tool", "name": "label"}},
        "thinking": {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000},
        "stopped": {"stop_sequences": ["Text"]},
        "image": {"messages": [{"role": "user", "content": [image_block(image())]}]},
    }
    requests = [line(name, **changes) for name, changes in asked.items()]
    made = client.messages.batches.create(requests=requests)
    ended(client, made.id)
    results = {entry.custom_id: entry.result for entry in client.messages.batches.results(made.id)}
    found = {name: result.message for name, result in results.items() if result.type == "succeeded"}
    call = found["tool"].content[0]
    assert isinstance(call, anthropic.types.ToolUseBlock)
    assert (call.name, found["tool"].stop_reason) == ("label", "tool_use")
    thought = found["thinking"].content[0]
    assert isinstance(thought, anthropic.types.ThinkingBlock)
    assert thought.signature == "emulator"
    details = found["thinking"].usage.output_tokens_details
    assert details is not None
    assert details.thinking_tokens > 0
    assert (found["stopped"].stop_reason, found["stopped"].stop_sequence) == (
        "stop_sequence",
        "Text",
    )
    unread: Any = found["image"].to_dict()["emulated"]
    assert unread["unread"][0]["what"] == "image/png, 40 x 30 pixels"


def test_list_pages_by_itself_newest_first(client: anthropic.Anthropic) -> None:
    made = [client.messages.batches.create(requests=lines(1)).id for _ in range(7)]
    assert [batch.id for batch in client.messages.batches.list(limit=3)] == made[::-1]
    page = client.messages.batches.list(limit=3, after_id=made[4])
    assert [batch.id for batch in page.data] == [made[3], made[2], made[1]]
    assert page.has_more
    page = client.messages.batches.list(limit=2, before_id=made[1])
    assert [batch.id for batch in page.data] == [made[3], made[2]]
    assert page.has_more
    page = client.messages.batches.list(before_id=made[-1])
    assert (page.data, page.has_more, page.first_id) == ([], False, None)


def test_cancel_goes_through_canceling_to_ended() -> None:
    with running(pace=Pace(end_s=3600, cancel_s=60)) as url, sdk(url) as client:
        made = client.messages.batches.create(requests=lines(5))
        canceling = client.messages.batches.cancel(made.id)
        assert canceling.processing_status == "canceling"
        assert canceling.cancel_initiated_at is not None
        assert canceling.results_url is None
        assert canceling.request_counts.processing == 5
        with Driver(url) as driver:
            driver.clock(advance_s=61)
        batch = ended(client, made.id)
        assert batch.request_counts.canceled == 5
        results = list(client.messages.batches.results(made.id))
        assert {entry.result.type for entry in results} == {"canceled"}


def test_delete_is_refused_until_the_end() -> None:
    with running(pace=Pace(end_s=3600)) as url, sdk(url) as client:
        made = client.messages.batches.create(requests=lines(1))
        with pytest.raises(anthropic.BadRequestError, match="In progress batches cannot be del"):
            client.messages.batches.delete(made.id)
        with pytest.raises(anthropic.NotFoundError) as refused:
            client.get(f"/v1/messages/batches/{made.id}/results", cast_to=object)
        assert f"Message Batch {made.id} has no available results." in str(refused.value)
        with Driver(url) as driver:
            driver.clock(advance_s=3601)
        assert client.messages.batches.delete(made.id).type == "message_batch_deleted"
        with pytest.raises(anthropic.NotFoundError, match=f"Message Batch {made.id} not found"):
            client.messages.batches.retrieve(made.id)


def test_tokens_are_counted(client: anthropic.Anthropic) -> None:
    asked: Any = {"messages": [{"role": "user", "content": "x" * 400}]}
    old = client.messages.count_tokens(model="claude-haiku-4-5", **asked).input_tokens
    new = client.messages.count_tokens(model="claude-opus-5", **asked).input_tokens
    assert (old, new) == (108, 138)
    with pytest.raises(anthropic.NotFoundError, match="model: nobody"):
        client.messages.count_tokens(model="nobody", **asked)
    with pytest.raises(anthropic.BadRequestError, match="at least one message is required"):
        client.messages.count_tokens(model="claude-opus-5", messages=[])


def test_a_wrong_key_is_an_authentication_error(url: str) -> None:
    with sdk(url, key="invalid-key") as client, pytest.raises(anthropic.AuthenticationError) as no:
        client.messages.batches.list()
    assert "API key is invalid." in str(no.value)
    assert no.value.request_id is not None


CREATE_ERRORS: list[tuple[str, list[Any], str]] = [
    (
        "a duplicate id",
        [line("dup"), line("dup")],
        "requests: custom_id's must be unique within a batch. Duplicate custom_id found: dup",
    ),
    ("no id", [{"params": {}}], "requests.0.custom_id: Field required"),
    (
        "a long id",
        [line("x" * 65)],
        "requests.0.custom_id: String should have at most 64 characters",
    ),
    (
        "a bad id",
        [line("a"), line("no spaces")],
        "requests.1.custom_id: String should match pattern '^[a-zA-Z0-9_-]{1,64}$'",
    ),
    ("no requests", [], "requests: List should have at least 1 item after validation, not 0"),
]


@pytest.mark.parametrize(("what", "requests", "message"), CREATE_ERRORS)
def test_a_create_error_is_the_api_s_own(
    shared_url: str, what: str, requests: Any, message: str
) -> None:
    with sdk(shared_url) as client, pytest.raises(anthropic.BadRequestError) as refused:
        client.messages.batches.create(requests=requests)
    body: Any = refused.value.body
    assert body["error"] == {"type": "invalid_request_error", "message": message}
    assert body["request_id"] == refused.value.request_id


def test_a_body_over_the_limit_meets_the_edge(tmp_path: Any) -> None:
    from batch_etl.emulator.settings import Settings

    settings = Settings(tmp_path, max_body_bytes=10_000)
    with running(tmp_path, settings=settings) as url, sdk(url) as client:
        with pytest.raises(anthropic.APIStatusError) as refused:
            client.messages.batches.create(requests=[line("a", "x" * 20_000)])
        assert refused.value.status_code == 413
        error = {"type": "request_too_large", "message": "Request exceeds the maximum size"}
        assert refused.value.body == {"error": error}
        with Driver(url) as driver:
            assert driver.status()["creates_accepted"] == 0


def test_both_api_versions_are_spoken(url: str) -> None:
    for version in ("2023-06-01", "2026-10-21"):
        with sdk(url, default_headers={"anthropic-version": version}) as client:
            made = client.messages.batches.create(requests=[line("a", temperature=0.5)])
            ended(client, made.id)
            [entry] = client.messages.batches.results(made.id)
            assert entry.result.type == ("succeeded" if version == "2023-06-01" else "errored")
