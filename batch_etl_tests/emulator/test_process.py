"""The emulator as a process: what it prints, how it ends, what outlives it, how much memory it
takes.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_etl_tests.emulator.driver import MODEL, Driver, Process, lines, process


def test_it_says_where_it_serves_and_ends_with_0_on_a_signal(tmp_path: Path) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        with process(tmp_path / str(number)) as started:
            assert started.ready["url"].startswith("http://127.0.0.1:")
            assert started.ready["pid"] == started.child.pid
            assert started.ready["state"] == str(tmp_path / str(number))
            started.driver.create(lines(1))
            started.child.send_signal(number)
            assert started.child.wait(timeout=20) == 0


def test_a_port_in_use_is_a_plain_error(tmp_path: Path, shared_url: str) -> None:
    port = shared_url.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "batch_etl.emulator", "--state", str(tmp_path), "--port", port]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "the emulator cannot start" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_folder_serves_one_emulator_at_a_time(tmp_path: Path) -> None:
    with process(tmp_path):
        command = [sys.executable, "-m", "batch_etl.emulator", "--state", str(tmp_path)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "another emulator is using" in ended.stderr


def kill(started: Process) -> None:
    started.child.kill()
    started.child.wait()


def test_batches_bills_faults_and_clock_outlive_kill_9(tmp_path: Path) -> None:
    with process(tmp_path, "--pace", "1000") as first:
        first.driver.faults({"kind": "expire_lines", "ids": ["r0"], "times": 1})
        before = first.driver.create(lines(30))
        first.driver.clock(advance_s=1001)
        results = first.driver.results(before)
        after = first.driver.create(lines(30))
        first.driver.faults(
            {"kind": "error", "route": "list", "times": 2}, {"kind": "expire_lines"}
        )
        assert first.driver.http.get("/v1/messages/batches").status_code == 500
        status = first.driver.status()
        kill(first)
    with process(tmp_path) as second:
        driver = second.driver
        assert driver.http.get("/v1/messages/batches").status_code == 500
        page = driver.http.get("/v1/messages/batches").json()["data"]
        assert [batch["id"] for batch in page] == [after, before]
        assert driver.results(before) == results
        again = driver.status()
        for name in ("requests_received", "requests_billed", "pace", "batches"):
            assert again[name] == status[name]
        assert again["clock"]["now"] > status["clock"]["now"]
        assert again["http_calls"]["create"] == 2
        driver.clock(advance_s=1001)
        assert set(driver.kinds(after).values()) == {"succeeded"}
        assert driver.status()["requests_billed"] == 59
        assert driver.status()["requests_billed_twice"] == 29
        kill(second)
    with process(tmp_path) as third:
        assert third.driver.status()["requests_billed_twice"] == 29


@pytest.mark.parametrize("moment", ["at once", "while canceling"])
def test_an_open_batch_ends_after_a_kill(tmp_path: Path, moment: str) -> None:
    with process(tmp_path, "--pace", "100", "--cancel-s", "50") as first:
        made = first.driver.create(lines(500))
        if moment == "while canceling":
            first.driver.http.post(f"/v1/messages/batches/{made}/cancel")
        kill(first)
    with process(tmp_path) as second:
        second.driver.clock(advance_s=101)
        counts = second.driver.retrieve(made)["request_counts"]
        kind = "succeeded" if moment == "at once" else "canceled"
        assert counts[kind] == 500
        assert len(second.driver.by_id(made)) == 500


def big_body(requests: int, text_bytes: int) -> Iterator[bytes]:
    """A create of that size, a request at a time."""
    text = "x" * text_bytes
    for n in range(requests):
        yield (
            b'%b{"custom_id":"r%d","params":{"model":"%b","max_tokens":5,"messages":'
            b'[{"role":"user","content":"%b"}]}}'
            % (b'{"requests":[' if n == 0 else b",", n, MODEL.encode(), text.encode())
        )
    yield b"]}"


def send_big(driver: Driver, requests: int, text_bytes: int) -> str:
    whole = b"".join(big_body(requests, text_bytes))
    pieces = (whole[n : n + 1_000_000] for n in range(0, len(whole), 1_000_000))
    headers = {"content-length": str(len(whole))}
    reply = driver.http.post("/v1/messages/batches", content=pieces, headers=headers)
    assert reply.status_code == 200
    return reply.json()["id"]


def test_a_big_create_costs_its_own_size_in_memory_and_results_cost_none(tmp_path: Path) -> None:
    with process(tmp_path, "--pace", "0") as started:
        driver = started.driver
        driver.run(lines(10))
        before = started.peak_bytes()
        made = send_big(driver, 3_000, 20_000)
        created = started.peak_bytes()
        assert created - before < 1.5 * 60_000_000
        driver.ended(made)
        with driver.http.stream("GET", f"/v1/messages/batches/{made}/results") as reply:
            assert sum(block.count(b"\n") for block in reply.iter_bytes()) == 3_000
        with driver.http.stream("GET", f"/_emulator/batches/{made}/received") as reply:
            assert sum(len(block) for block in reply.iter_bytes()) > 60_000_000
        assert started.peak_bytes() - created < 30_000_000
