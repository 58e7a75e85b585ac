"""A command whose terminal closes, or that is ended, leaves no emulator behind: real processes."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from batch_etl_tests.conftest import prerequisite
from batch_etl_tests.waiting import until

DEMO = [sys.executable, "-m", "batch_etl.cli", "demo", "--pipeline", "content_moderation"]


def emulators(home: Path) -> list[int]:
    """The processes that live and keep an emulator's state in this home."""
    prerequisite(Path("/proc/self/cmdline").exists(), "a /proc that tells of processes")
    found: list[int] = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if str(home / "emulator").encode() in (process / "cmdline").read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


@contextmanager
def demo(
    home: Path, ignored: signal.Signals | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], None]]]:
    """The command in a terminal, with its emulator; and what closes the terminal."""
    terminal, inner = pty.openpty()
    open_ends = {terminal}

    def at_start() -> None:
        os.login_tty(inner)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if ignored:
            signal.signal(ignored, signal.SIG_IGN)

    def close() -> None:
        os.close(terminal)
        open_ends.clear()

    process = subprocess.Popen([*DEMO, "--home", str(home)], preexec_fn=at_start)  # noqa: PLW1509
    os.close(inner)
    try:
        until(lambda: any((home / "emulator").glob("*")) or process.poll() is not None)
        yield process, close
    finally:
        process.kill()
        process.wait()
        for end in open_ends:
            os.close(end)
        for pid in emulators(home):
            os.kill(pid, signal.SIGKILL)


def test_a_terminal_that_closes_ends_the_command_with_its_emulator(tmp_path: Path) -> None:
    with demo(tmp_path) as (process, close):
        close()
        process.send_signal(signal.SIGHUP)  # a shell sends another to its jobs
        process.wait(120)
        assert emulators(tmp_path) == []


def test_a_command_that_is_ended_early_ends_its_emulator(tmp_path: Path) -> None:
    with demo(tmp_path) as (process, _):
        process.terminate()
        assert process.wait(120) == 130
        assert emulators(tmp_path) == []


def test_under_nohup_a_terminal_that_closes_ends_nothing(tmp_path: Path) -> None:
    with demo(tmp_path, ignored=signal.SIGHUP) as (process, _):
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        assert emulators(tmp_path) != []
        process.terminate()
        process.wait(120)
        assert emulators(tmp_path) == []
