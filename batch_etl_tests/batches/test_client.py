"""The client against a server that plays each good and bad behaviour over a real socket."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from batch_etl.batches import errors
from batch_etl.batches.client import CHUNK_BYTES, Client, FilePayload, MemoryPayload
from batch_etl.errors import ConfigError
from batch_etl_tests.scripted_server import ScriptedServer, Step, answer, error, head, silent

KEY = "sk-ant-MARKED-KEY-0001"
BODY = b'{"requests":[]}'
PAYLOAD = MemoryPayload([BODY])
PAGE = {"data": [], "has_more": False, "first_id": None, "last_id": None}
EMULATOR = {"x-batch-etl-emulator": "batch-etl 0.1.0"}


def batch(
    batch_id: str = "msgbatch_01", status: str = "in_progress", **fields: Any
) -> dict[str, Any]:
    counts = {"processing": 2, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0}
    return {
        "id": batch_id,
        "type": "message_batch",
        "processing_status": status,
        "request_counts": counts,
        "ended_at": None,
        "created_at": "2026-06-02T15:03:37.719714+00:00",
        "expires_at": "2026-06-03T15:03:37.719714Z",
        "archived_at": None,
        "cancel_initiated_at": None,
        "results_url": None,
        **fields,
    }


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as scripted:
        yield scripted


@pytest.fixture(autouse=True)
def logs(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """Every test here also proves that no logger of any library saw the key."""
    caplog.set_level(logging.DEBUG)

    def text() -> str:
        return "\n".join(record.getMessage() for record in caplog.get_records("call"))

    yield text
    assert KEY not in text()


class Connect:
    """Clients of one test, with the pauses they would have slept."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.clients: list[Client] = []

    def __call__(self, url: str | ScriptedServer, **settings: Any) -> Client:
        base_url = url.url if isinstance(url, ScriptedServer) else url
        client = Client(
            base_url,
            **{
                "api_key": KEY,
                "allow_emulator": True,
                "sleep": self.pauses.append,
                "read_timeout_s": 20,
                **settings,
            },
        )
        self.clients.append(client)
        return client


@pytest.fixture
def connect() -> Iterator[Connect]:
    opened = Connect()
    yield opened
    for client in opened.clients:
        client.close()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


# --- create: what is sent, and what each failure means ---------------------------------------


def test_create_returns_the_batch_the_servers_clock_and_the_request_id(
    server: ScriptedServer, connect: Connect
) -> None:
    server.then(answer(200, batch(), {"date": "Tue, 02 Jun 2026 15:03:38 GMT"}))
    created = connect(server).create_batch(PAYLOAD, betas=["b-1", "b-2"])
    assert created.batch.id == "msgbatch_01"
    assert created.batch.request_counts.total == 2
    assert created.server_time == datetime(2026, 6, 2, 15, 3, 38, tzinfo=UTC)
    assert created.request_id == "req_scripted"
    (received,) = server.received
    assert (received.method, received.target) == ("POST", "/v1/messages/batches")
    assert received.headers["anthropic-beta"] == "b-1,b-2"
    assert received.headers["anthropic-version"] == "2023-06-01"
    assert received.headers["content-type"] == "application/json"
    assert received.headers["content-length"] == str(len(BODY))
    assert "transfer-encoding" not in received.headers
    assert received.body == BODY


DEFINITE: list[tuple[str, Step, type[errors.ApiError]]] = [
    ("400", error(400, "invalid_request_error", "requests: too short"), errors.InvalidRequest),
    ("401", error(401, "authentication_error", "API key is invalid."), errors.Unauthorized),
    ("402", error(402, "billing_error", "Credit is used up"), errors.SpendLimit),
    ("403", error(403, "permission_error", "Not allowed"), errors.PermissionDenied),
    ("404", error(404, "not_found_error", "Nothing here"), errors.NotFound),
    ("408", error(408, "timeout_error", "Too slow"), errors.Busy),
    ("409", error(409, "conflict_error", "Conflict"), errors.Busy),
    ("413", error(413, "request_too_large", "Too large"), errors.TooLarge),
    (
        "413 of the edge",
        answer(413, {"error": {"type": "request_too_large", "message": "Request exceeds"}}),
        errors.TooLarge,
    ),
    ("422", error(422, "invalid_request_error", "Unprocessable"), errors.InvalidRequest),
    ("429", error(429, "rate_limit_error", "Slow down"), errors.RateLimited),
    ("429 of a gateway", answer(429, b"slow down"), errors.RateLimited),
    ("529", error(529, "overloaded_error", "Overloaded"), errors.Overloaded),
    ("404 of another server", answer(404, {"detail": "Not Found"}), errors.NotTheApi),
    (
        "403 page of a firewall",
        answer(403, b"<!doctype html><title>Blocked</title>", {"content-type": "text/html"}),
        errors.NotTheApi,
    ),
    ("redirect", answer(308, b"", {"location": "https://other.example/"}), errors.Redirected),
]

AMBIGUOUS: list[tuple[str, Step, type[errors.ApiError]]] = [
    ("500", error(500, "api_error", "Internal server error"), errors.ServerFault),
    ("503", error(503, "api_error", "Unavailable"), errors.ServerFault),
    ("504", error(504, "timeout_error", "Gateway timeout"), errors.ServerFault),
    (
        "502 page of a proxy",
        answer(502, b"<html><title>502 Bad Gateway</title>", {"content-type": "text/html"}),
        errors.ServerFault,
    ),
    ("HTML with 200", answer(200, b"<html><title>Log in</title></html>"), errors.NotTheApi),
    ("JSON of something else", answer(200, {"ok": True}), errors.NotTheApi),
    ("torn JSON", answer(200, b'{"id":"msgbatch_0'), errors.Interrupted),
    (
        "reply cut by the connection's end",
        Step([head(200, {"content-length": "900"}), b'{"id":'], end="close"),
        errors.Interrupted,
    ),
    ("reset after the body was read", Step(end="reset"), errors.Interrupted),
    ("closed after the body was read", Step(end="close"), errors.Interrupted),
    ("not HTTP at all", Step([b"SSH-2.0-OpenSSH_9.2\r\n"], end="close"), errors.Interrupted),
    ("silence", silent(), errors.TimedOut),
    ("see other", answer(303, b"", {"location": "/elsewhere"}), errors.Redirected),
]


@pytest.mark.parametrize(("step", "kind"), [pytest.param(s, k, id=i) for i, s, k in DEFINITE])
def test_a_definite_refusal_of_a_create_is_raised_as_it_is_after_one_post(
    server: ScriptedServer, connect: Connect, step: Step, kind: type[errors.ApiError]
) -> None:
    server.then(step)
    with pytest.raises(errors.ApiError) as caught:
        connect(server).create_batch(PAYLOAD)
    assert type(caught.value) is kind
    assert caught.value.definite
    assert not caught.value.may_have_been_accepted
    assert server.connections == 1
    assert connect.pauses == []


@pytest.mark.parametrize(("step", "kind"), [pytest.param(s, k, id=i) for i, s, k in AMBIGUOUS])
def test_a_create_of_unknown_fate_is_ambiguous_after_one_post(
    server: ScriptedServer, connect: Connect, step: Step, kind: type[errors.ApiError]
) -> None:
    server.then(step)
    with pytest.raises(errors.AmbiguousCreate) as caught:
        connect(server, read_timeout_s=0.3).create_batch(PAYLOAD)
    assert type(caught.value.cause) is kind
    assert caught.value.may_have_been_accepted
    assert not caught.value.transient
    assert caught.value.body_complete
    assert server.connections == 1
    assert connect.pauses == []
    assert KEY not in str(caught.value) + repr(caught.value)


def test_a_refused_connection_is_definite_and_names_the_address(connect: Connect) -> None:
    port = closed_port()
    with pytest.raises(errors.Unreachable) as caught:
        connect(f"http://127.0.0.1:{port}").create_batch(PAYLOAD)
    assert caught.value.definite
    assert caught.value.transient
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "batch-etl emulator" in str(caught.value)


def test_a_reset_on_accept_is_definite_only_if_it_came_before_anything_was_sent(
    server: ScriptedServer, connect: Connect
) -> None:
    server.then(Step(read="nothing", end="reset"))
    with pytest.raises(errors.ApiError) as caught:
        connect(server).create_batch(PAYLOAD)
    assert type(caught.value) in (errors.Unreachable, errors.AmbiguousCreate)
    assert server.connections == 1


def test_a_server_that_speaks_no_tls_is_unreachable(
    server: ScriptedServer, connect: Connect
) -> None:
    server.then(Step([b"HTTP/1.0 400 Bad Request\r\n\r\n"], read="nothing", end="close"))
    with pytest.raises(errors.Unreachable, match="does not speak TLS"):
        connect(server.url.replace("http", "https")).create_batch(PAYLOAD)


def test_a_create_whose_body_was_cut_on_the_way_says_so(
    server: ScriptedServer, connect: Connect
) -> None:
    server.then(Step(read="some", end="reset"))
    payload = MemoryPayload([bytes(2**20)] * 32)
    with pytest.raises(errors.AmbiguousCreate) as caught:
        connect(server).create_batch(payload)
    assert caught.value.handed_bytes < payload.size_bytes
    assert not caught.value.body_complete


def test_creates_never_ride_on_a_used_connection(server: ScriptedServer, connect: Connect) -> None:
    server.then(*[answer(200, batch())] * 4)
    client = connect(server)
    client.retrieve("msgbatch_01")
    client.create_batch(PAYLOAD)
    client.create_batch(PAYLOAD)
    client.retrieve("msgbatch_01")
    assert server.connections == 3


@pytest.mark.parametrize("promised", [len(BODY) - 1, len(BODY) + 1])
def test_a_payload_of_another_size_than_promised_never_arrives_whole(
    server: ScriptedServer, connect: Connect, tmp_path: Path, promised: int
) -> None:
    spool = tmp_path / "payload.json"
    spool.write_bytes(bytes(promised))
    payload = FilePayload(spool)
    spool.write_bytes(BODY)
    server.then(answer(200, batch()))
    with pytest.raises(errors.PayloadBroken, match="No batch was created"):
        connect(server).create_batch(payload)
    server.close()
    assert all(received.body_bytes < promised for received in server.received)


def test_a_payload_that_cannot_be_read_raises_its_own_error(
    server: ScriptedServer, connect: Connect, tmp_path: Path
) -> None:
    spool = tmp_path / "payload.json"
    spool.write_bytes(BODY)
    payload = FilePayload(spool)
    spool.unlink()
    with pytest.raises(FileNotFoundError):
        connect(server).create_batch(payload)


def test_an_exit_during_a_create_passes_through(server: ScriptedServer, connect: Connect) -> None:
    class Terminated(BaseException):
        pass

    class Payload:
        size_bytes = 10

        def blocks(self) -> Iterator[bytes]:
            yield b"12345"
            raise Terminated

    with pytest.raises(Terminated):
        connect(server).create_batch(Payload())


def test_a_large_file_is_streamed_with_a_length_and_in_small_memory(
    server: ScriptedServer, connect: Connect, tmp_path: Path
) -> None:
    spool = tmp_path / "payload.json"
    block = bytes(range(256)) * 4096
    with spool.open("wb") as file:
        for _ in range(64):
            file.write(block)
    server.then(answer(200, batch()))
    client = connect(server)
    tracemalloc.start()
    try:
        client.create_batch(FilePayload(spool))
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    (received,) = server.received
    assert received.headers["content-length"] == str(64 * 2**20)
    assert received.body_bytes == 64 * 2**20
    assert received.sha256 == hashlib.sha256(block * 64).hexdigest()
    assert peak_bytes < 12 * 2**20, "pieces here, and 4 MB kept by the test's own server"


# --- the other calls -------------------------------------------------------------------------


def test_a_poll_tells_the_servers_hint_and_keeps_unknown_words(
    server: ScriptedServer, connect: Connect
) -> None:
    server.then(answer(200, batch(status="resting", news=[1]), {"retry-after": "10"}))
    polled = connect(server).retrieve("msgbatch_01")
    assert polled.retry_after_s == 10
    assert polled.batch.processing_status == "resting"
    assert not polled.batch.ended
    assert polled.batch.expires_at == datetime(2026, 6, 3, 15, 3, 37, 719714, tzinfo=UTC)
    assert connect.pauses == []


def test_all_batches_come_newest_first_over_pages_fetched_when_reached(
    server: ScriptedServer, connect: Connect
) -> None:
    pages = [["b4", "b3"], ["b2", "b1"]]
    for number, ids in enumerate(pages):
        server.then(
            answer(
                200,
                {
                    "data": [batch(i) for i in ids],
                    "has_more": number == 0,
                    "first_id": ids[0],
                    "last_id": ids[-1],
                },
            )
        )
    batches = connect(server).iter_batches(limit=2)
    assert [next(batches).id, next(batches).id] == ["b4", "b3"]
    assert len(server.received) == 1
    assert [b.id for b in batches] == ["b2", "b1"]
    assert [r.query for r in server.received] == ["limit=2", "limit=2&after_id=b3"]


def test_a_list_that_never_ends_is_an_error(server: ScriptedServer, connect: Connect) -> None:
    page = answer(200, {**PAGE, "data": [batch("b1")], "has_more": True, "last_id": "b1"})
    server.then(page, page, page)
    with pytest.raises(errors.NotTheApi, match="list without end"):
        list(connect(server).iter_batches())
    assert len(server.received) == 2


def test_cancel_delete_and_count_tokens_read_their_replies(
    server: ScriptedServer, connect: Connect
) -> None:
    server.then(
        answer(200, batch(status="canceling")),
        answer(200, {"id": "msgbatch_01", "type": "message_batch_deleted"}),
        answer(200, {"input_tokens": 14}),
    )
    client = connect(server)
    assert client.cancel("msgbatch_01").processing_status == "canceling"
    assert client.delete("msgbatch_01").id == "msgbatch_01"
    assert client.count_tokens({"model": "claude-haiku-4-5"}, betas=["b"]) == 14
    calls = [(r.method, r.target) for r in server.received]
    assert calls == [
        ("POST", "/v1/messages/batches/msgbatch_01/cancel"),
        ("DELETE", "/v1/messages/batches/msgbatch_01"),
        ("POST", "/v1/messages/count_tokens"),
    ]
    assert json.loads(server.received[2].body) == {"model": "claude-haiku-4-5"}


@pytest.mark.parametrize("batch_id", ["", ".", ".."])
def test_what_is_no_batch_id_is_refused_before_a_request(
    server: ScriptedServer, connect: Connect, batch_id: str
) -> None:
    with pytest.raises(ConfigError, match="is not a batch id"):
        connect(server).delete(batch_id)
    assert server.connections == 0


def test_a_batch_id_cannot_lead_to_another_path(server: ScriptedServer, connect: Connect) -> None:
    server.then(answer(200, batch()))
    connect(server).retrieve("../../x?y#z")
    assert server.received[0].target == "/v1/messages/batches/..%2F..%2Fx%3Fy%23z"


# --- repeats ---------------------------------------------------------------------------------

PASSING = [s for i, s, k in DEFINITE if k.transient] + [
    s for i, s, k in AMBIGUOUS if k.transient and i != "silence"
]
PASSING.append(Step(read="nothing", end="reset"))
LASTING = [s for _, s, k in DEFINITE + AMBIGUOUS if not k.transient]


@pytest.mark.parametrize("step", PASSING)
def test_a_read_that_may_pass_is_tried_again(
    server: ScriptedServer, connect: Connect, step: Step
) -> None:
    server.then(step, step, answer(200, batch()))
    assert connect(server).retrieve("msgbatch_01").batch.id == "msgbatch_01"
    assert len(connect.pauses) == 2
    assert 0.375 <= connect.pauses[0] <= 0.5
    assert 0.75 <= connect.pauses[1] <= 1.0


@pytest.mark.parametrize("step", LASTING)
def test_a_read_that_cannot_pass_is_tried_once(
    server: ScriptedServer, connect: Connect, step: Step
) -> None:
    server.then(step)
    with pytest.raises(errors.ApiError):
        connect(server).retrieve("msgbatch_01")
    assert len(server.received) == 1
    assert connect.pauses == []


def test_a_silent_server_is_asked_again(server: ScriptedServer, connect: Connect) -> None:
    server.then(silent(), answer(200, batch()))
    connect(server, read_timeout_s=0.2).retrieve("msgbatch_01")
    assert len(server.received) == 2


def test_after_the_last_try_the_error_itself_is_raised(
    server: ScriptedServer, connect: Connect
) -> None:
    server.then(*[error(500, "api_error", "Internal")] * 3)
    with pytest.raises(errors.ServerFault) as caught:
        connect(server, max_tries=3).cancel("msgbatch_01")
    assert caught.value.request_id == "req_scripted"
    assert len(server.received) == 3
    assert len(connect.pauses) == 2


@pytest.mark.parametrize(
    ("headers", "least_s", "most_s"),
    [
        ({"retry_after": "7"}, 7, 7.7),
        ({"retry_after": "0.5"}, 0.5, 0.55),
        ({"retry_after": "7", "retry_after_ms": "250"}, 0.25, 0.275),
        ({"retry_after": "86400"}, 120, 132),
        ({"retry_after": "Tue, 02 Jun 2026 15:00:09 GMT"}, 9, 9.9),
        ({"retry_after": "Tue, 02 Jun 2026 14:00:00 GMT"}, 0.375, 0.5),
        ({"retry_after": "soon"}, 0.375, 0.5),
        ({"retry_after": "nan"}, 0.375, 0.5),
        ({}, 0.375, 0.5),
    ],
)
def test_the_pause_is_the_servers_when_it_names_one(
    server: ScriptedServer,
    connect: Connect,
    headers: dict[str, str],
    least_s: float,
    most_s: float,
) -> None:
    date = "Tue, 02 Jun 2026 15:00:00 GMT"
    server.then(error(429, "rate_limit_error", "Slow", date=date, **headers), answer(200, PAGE))
    connect(server).list_batches()
    (pause,) = connect.pauses
    assert least_s <= pause <= most_s


@pytest.mark.parametrize(
    ("step", "tries"),
    [
        (error(500, "api_error", "Internal", x_should_retry="false"), 1),
        (error(400, "invalid_request_error", "Odd", x_should_retry="true"), 2),
        (error(402, "billing_error", "Credit", x_should_retry="true"), 1),
    ],
)
def test_x_should_retry_outweighs_the_status_but_not_a_spend_limit(
    server: ScriptedServer, connect: Connect, step: Step, tries: int
) -> None:
    server.then(step, step)
    with pytest.raises(errors.ErrorReply):
        connect(server, max_tries=2).list_batches()
    assert len(server.received) == tries


@pytest.mark.parametrize(
    "body",
    [
        (429, "rate_limit_error", "enforced_spend_limit_reached", "Limit"),
        (429, "rate_limit_error", "contract_spend_limit_reached", "Limit"),
        (
            400,
            "invalid_request_error",
            None,
            "You have reached your specified API usage limits. You will regain access on ...",
        ),
    ],
)
def test_a_spend_limit_is_never_tried_again(
    server: ScriptedServer, connect: Connect, body: tuple[int, str, str | None, str]
) -> None:
    status, kind, code, message = body
    details = {"error_code": code} if code else None
    reply = {"type": "error", "error": {"type": kind, "message": message, "details": details}}
    server.then(answer(status, reply), answer(status, reply))
    client = connect(server)
    with pytest.raises(errors.SpendLimit) as caught:
        client.list_batches()
    assert caught.value.error_code == code
    with pytest.raises(errors.SpendLimit):
        client.create_batch(PAYLOAD)
    assert len(server.received) == 2


def test_a_404_is_final_unless_the_caller_knows_better(
    server: ScriptedServer, connect: Connect
) -> None:
    absent = error(404, "not_found_error", "Message Batch x not found.", x_should_retry="false")
    server.then(absent, absent, absent, answer(200, batch()))
    client = connect(server)
    with pytest.raises(errors.NotFound):
        client.retrieve("x")
    assert client.retrieve("x", not_found_for_s=30).batch.id == "msgbatch_01"
    assert len(connect.pauses) == 2


def test_a_404_that_lasts_is_raised_when_the_patience_ends(
    server: ScriptedServer, connect: Connect
) -> None:
    server.then(*[error(404, "not_found_error", "No results.")] * 20)
    with pytest.raises(errors.NotFound), connect(server).results("x", not_found_for_s=10):
        pass
    assert 10 <= sum(connect.pauses) < 20


def test_an_exit_during_a_pause_passes_through(server: ScriptedServer, connect: Connect) -> None:
    class Terminated(BaseException):
        pass

    def terminate(_: float) -> None:
        raise Terminated

    server.then(error(500, "api_error", "Internal"))
    with pytest.raises(Terminated):
        connect(server, sleep=terminate).retrieve("msgbatch_01")
    assert len(server.received) == 1


# --- results ---------------------------------------------------------------------------------

LINES = b"".join(b'{"custom_id":"x%06d","result":{"type":"expired"}}\n' % i for i in range(20_000))


def chunked(parts: Sequence[bytes], *, whole: bool) -> Step:
    framed = [b"%x\r\n%s\r\n" % (len(part), part) for part in parts]
    tail = [b"0\r\n\r\n"] if whole else []
    headers = head(200, {"transfer-encoding": "chunked"})
    return Step([headers, *framed, *tail], end="keep" if whole else "close")


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(answer(200, LINES), id="length"),
        pytest.param(chunked([LINES[:70_001], LINES[70_001:]], whole=True), id="chunks"),
        pytest.param(answer(200, gzip.compress(LINES), {"content-encoding": "gzip"}), id="gzip"),
        pytest.param(Step([head(200, {}), LINES], end="close"), id="until close"),
    ],
)
def test_results_come_whole_in_large_chunks(
    server: ScriptedServer, connect: Connect, step: Step
) -> None:
    server.then(step)
    with connect(server).results("msgbatch_01") as chunks:
        sizes, digest = [], hashlib.sha256()
        for chunk in chunks:
            sizes.append(len(chunk))
            digest.update(chunk)
    assert digest.digest() == hashlib.sha256(LINES).digest()
    assert set(sizes[:-1]) == {CHUNK_BYTES}
    assert server.received[0].target == "/v1/messages/batches/msgbatch_01/results"


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        pytest.param(
            Step([head(200, {"content-length": str(len(LINES))}), LINES[:600_000]], end="close"),
            errors.Interrupted,
            id="short of its length",
        ),
        pytest.param(
            chunked([LINES[:600_000]], whole=False), errors.Interrupted, id="no last chunk"
        ),
        pytest.param(
            Step(
                [
                    head(200, {"content-length": str(len(LINES))}),
                    LINES[:600_000],
                    threading.Event(),
                ],
                end="close",
            ),
            errors.TimedOut,
            id="stalled",
        ),
        pytest.param(
            answer(200, b"not gzip at all", {"content-encoding": "gzip"}),
            errors.Interrupted,
            id="undecodable",
        ),
    ],
)
def test_a_stream_that_ends_before_its_end_is_a_transient_error(
    server: ScriptedServer, connect: Connect, step: Step, kind: type[errors.ApiError]
) -> None:
    server.then(step, answer(200, LINES))
    client = connect(server, read_timeout_s=0.5)
    with pytest.raises(kind) as caught, client.results("msgbatch_01") as chunks:
        for _ in chunks:
            pass
    assert caught.value.transient
    with client.results("msgbatch_01") as chunks:
        assert b"".join(chunks) == LINES


def test_results_can_be_left_early_and_the_readers_own_error_is_its_own(
    server: ScriptedServer, connect: Connect
) -> None:
    server.then(answer(200, LINES), answer(200, LINES), answer(200, batch()))
    client = connect(server)
    with client.results("msgbatch_01") as chunks:
        next(chunks)
    with pytest.raises(ZeroDivisionError), client.results("msgbatch_01") as chunks:
        _ = 1 / (len(next(chunks)) - CHUNK_BYTES)
    assert client.retrieve("msgbatch_01").batch.id == "msgbatch_01"


def test_one_thread_polls_while_another_downloads(server: ScriptedServer, connect: Connect) -> None:
    gate = threading.Event()
    slow = [head(200, {"content-length": str(len(LINES))}), LINES[:500_000], gate, LINES[500_000:]]
    server.then(Step(slow), *[answer(200, batch())] * 5)
    client = connect(server)
    started = threading.Event()

    def download() -> bytes:
        with client.results("msgbatch_01") as chunks:
            first = next(chunks)
            started.set()
            return first + b"".join(chunks)

    with ThreadPoolExecutor(1) as pool:
        downloaded = pool.submit(download)
        assert started.wait(10)
        for _ in range(5):
            client.retrieve("msgbatch_02")
        assert not downloaded.done()
        gate.set()
        assert downloaded.result(10) == LINES


# --- the key ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "header", "value"),
    [
        ({}, "x-api-key", KEY),
        ({"auth": "bearer"}, "authorization", f"Bearer {KEY}"),
    ],
    ids=["x-api-key", "bearer"],
)
def test_the_key_goes_in_the_header_that_was_chosen_and_no_other(
    server: ScriptedServer, connect: Connect, settings: dict[str, Any], header: str, value: str
) -> None:
    server.then(answer(200, PAGE))
    connect(server, **settings).list_batches()
    (received,) = server.received
    assert [(k, v) for k, v in received.headers.items() if KEY in v] == [(header, value)]


def test_without_a_key_no_authorization_is_sent(server: ScriptedServer, connect: Connect) -> None:
    server.then(answer(200, PAGE))
    connect(server, api_key=None).list_batches()
    assert not {"x-api-key", "authorization"} & set(server.received[0].headers)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_error_and_the_other_origin_never_hears_of_it(
    server: ScriptedServer, connect: Connect, status: int
) -> None:
    with ScriptedServer() as foreign:
        there = f"{foreign.url.replace('//', '//user:secret@')}/v1?token=secret"
        server.then(*[answer(status, b"", {"location": there})] * 3)
        client = connect(server)
        for call in (client.list_batches, lambda: client.create_batch(PAYLOAD)):
            with pytest.raises(errors.ApiError, match="Redirects are not followed") as caught:
                call()
            assert foreign.url in str(caught.value)
            assert "secret" not in str(caught.value)
        assert foreign.connections == 0


def test_results_are_read_from_the_configured_origin_whatever_results_url_says(
    server: ScriptedServer, connect: Connect
) -> None:
    with ScriptedServer() as foreign:
        url = f"{foreign.url}/v1/messages/batches/msgbatch_01/results"
        server.then(answer(200, batch(status="ended", results_url=url)), answer(200, LINES))
        client = connect(f"{server.url}/proxy//")
        polled = client.retrieve("msgbatch_01")
        with client.results(polled.batch.id) as chunks:
            assert b"".join(chunks) == LINES
        assert foreign.connections == 0
    assert [r.target for r in server.received] == [
        "/proxy/v1/messages/batches/msgbatch_01",
        "/proxy/v1/messages/batches/msgbatch_01/results",
    ]


def test_no_repr_error_or_log_shows_the_key_even_if_the_server_echoes_it(
    server: ScriptedServer, connect: Connect, logs: Callable[[], str]
) -> None:
    server.then(
        error(401, "authentication_error", f"API key {KEY} is invalid."),
        answer(200, f"<html><title>Hello {KEY}</title>".encode()),
        error(500, "api_error", f"no luck with {KEY}"),
    )
    client = connect(server)
    for call in (client.list_batches, client.list_batches, lambda: client.create_batch(PAYLOAD)):
        with pytest.raises(errors.ApiError) as caught:
            call()
        assert "[key]" in str(caught.value)
        assert KEY not in str(caught.value) + repr(caught.value) + repr(vars(caught.value))
    assert KEY not in repr(client) + repr(vars(client))
    assert "GET /v1/messages/batches: 401, request-id req_scripted" in logs()


@pytest.mark.parametrize("key", ["", "sk-ant\n", "sk ant", "sk-ant-é", "“sk-ant”"])
def test_a_key_that_was_not_copied_whole_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(ConfigError, match="not copied whole") as caught:
        Client("https://api.anthropic.com", api_key=key)
    assert not key or key not in str(caught.value)


def test_the_environments_proxies_are_not_for_this_machine(
    server: ScriptedServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    server.then(answer(200, PAGE))
    connect(server).list_batches()
    assert len(server.received) == 1


def test_a_proxy_for_other_machines_sees_a_tunnel_and_never_the_key(
    server: ScriptedServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    server.then(answer(403, b"not through here"))
    with pytest.raises(errors.Unreachable, match=r"api\.example\.invalid:443 \(403"):
        connect("https://api.example.invalid").create_batch(PAYLOAD)
    (received,) = server.received
    assert (received.method, received.target) == ("CONNECT", "api.example.invalid:443")
    assert KEY not in str(received.headers)


# --- the kind of server ----------------------------------------------------------------------


def test_a_ping_tells_who_answers(server: ScriptedServer, connect: Connect) -> None:
    server.then(answer(200, PAGE, {**EMULATOR, "date": "Tue, 02 Jun 2026 15:00:00 GMT"}))
    reached = connect(server).ping()
    assert reached.base_url == server.url
    assert reached.emulator == EMULATOR["x-batch-etl-emulator"]
    assert reached.server_time == datetime(2026, 6, 2, 15, tzinfo=UTC)
    assert server.received[0].target == "/v1/messages/batches?limit=1"


def test_an_emulator_never_passes_for_claude_and_nothing_is_created(
    server: ScriptedServer, connect: Connect
) -> None:
    server.then(answer(200, PAGE, EMULATOR), answer(401, b"", EMULATOR))
    client = connect(server, allow_emulator=False)
    with pytest.raises(ConfigError, match="is an emulator"):
        client.create_batch(PAYLOAD)
    with pytest.raises(ConfigError, match="is an emulator"):
        client.retrieve("msgbatch_01")
    assert [r.method for r in server.received] == ["GET", "GET"]
    assert connect.pauses == []


def test_the_first_reply_is_looked_at_once_before_the_first_create(
    server: ScriptedServer, connect: Connect
) -> None:
    server.then(answer(200, PAGE), answer(200, batch()), answer(200, batch()))
    client = connect(server, allow_emulator=False)
    client.create_batch(PAYLOAD)
    client.create_batch(PAYLOAD)
    assert [r.method for r in server.received] == ["GET", "POST", "POST"]


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (error(401, "authentication_error", "API key is invalid."), errors.Unauthorized),
        (error(500, "api_error", "Internal"), errors.ServerFault),
        (Step(end="reset"), errors.Interrupted),
    ],
)
def test_a_failure_of_the_look_before_the_first_create_is_not_ambiguous(
    server: ScriptedServer, connect: Connect, step: Step, kind: type[errors.ApiError]
) -> None:
    server.then(step)
    with pytest.raises(kind) as caught:
        connect(server, allow_emulator=False, max_tries=1).create_batch(PAYLOAD)
    assert not caught.value.may_have_been_accepted
    assert [r.method for r in server.received] == ["GET"]


def test_a_closed_client_leaves_no_connection(server: ScriptedServer) -> None:
    server.then(answer(200, PAGE))
    with Client(server.url, api_key=KEY, allow_emulator=True) as client:
        client.list_batches()
    deadline = time.monotonic() + 10
    while server.open_connections and time.monotonic() < deadline:
        time.sleep(0.005)
    assert server.open_connections == 0
