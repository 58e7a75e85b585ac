"""A holder is called gone only when its process is dead for certain."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from batch_etl.batches.holder import is_gone, this_process
from batch_etl.batches.ledger import Ledger

_HOLD = """
import os, signal, sys
from batch_etl.batches.ledger import Ledger
assert Ledger(sys.argv[1]).acquire(sys.argv[2]) is not None
print("held", flush=True)
os.kill(os.getpid(), getattr(signal, sys.argv[3]))
"""


def test_a_living_process_is_not_gone() -> None:
    assert not is_gone(this_process())


def test_two_names_of_one_process_differ() -> None:
    assert this_process() != this_process()


def test_a_process_that_ended_is_gone() -> None:
    code = "from batch_etl.batches.holder import this_process; print(this_process())"
    name = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert is_gone(name.stdout.strip())


def test_another_process_under_the_same_id_does_not_keep_the_dead_one_alive() -> None:
    host, boot, pid, started, random = this_process().split(":")
    assert is_gone(":".join([host, boot, pid, str(int(started) - 1), random]))


_HIDDEN = """
mount -t proc -o hidepid=2 proc /proc || exit 77
exec "$0" -c 'import os, sys
from batch_etl.batches.holder import is_gone
is_gone(sys.argv[1])  # all modules that it needs are read while this process may
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
assert not os.path.exists(f"/proc/{os.getppid()}")
print(is_gone(sys.argv[1]), is_gone(sys.argv[2]))' "$@"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts /proc as a host that hides processes")
def test_a_living_process_that_proc_hides_is_not_gone() -> None:
    living = this_process()
    host, boot, _, started, random = living.split(":")
    dead = ":".join([host, boot, "999999999", started, random])
    asked = ["unshare", "--mount", "sh", "-c", _HIDDEN, sys.executable, living, dead]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip(f"it may not mount: {done.stderr}")
    assert (done.stdout, done.stderr) == ("False True\n", "")


def test_of_another_machine_boot_or_container_nothing_is_certain() -> None:
    host, boot, _, started, random = this_process().split(":")
    dead = "999999999"
    assert is_gone(":".join([host, boot, dead, started, random]))
    assert not is_gone(":".join(["elsewhere", boot, dead, started, random]))
    assert not is_gone(":".join([host, "other-boot", dead, started, random]))
    assert not is_gone(":".join([host, boot, dead, "", random]))
    assert not is_gone("an-older-format")


def _transform(ledger: Ledger) -> str:
    return ledger.create_transform(
        pipeline="p",
        endpoint="emulator",
        scope=[None],
        fingerprint="f",
        records_digest="d",
        task={},
    )


def _held_by_child(url: str, transform_id: str, fate: str) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", _HOLD, url, transform_id, fate], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def test_the_lease_of_a_killed_process_is_taken_over_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    ledger = Ledger(url)
    transform_id = _transform(ledger)
    with _held_by_child(url, transform_id, "SIGKILL") as child:
        child.wait()
        lease = ledger.acquire(transform_id)
    assert lease is not None
    assert lease.fence == 2
    ledger.close()


def test_the_lease_of_a_stopped_process_is_left_to_it_until_it_expires(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    ledger = Ledger(url)
    transform_id = _transform(ledger)
    with _held_by_child(url, transform_id, "SIGSTOP") as child:
        try:
            assert ledger.acquire(transform_id) is None
        finally:
            child.kill()
    ledger.close()
