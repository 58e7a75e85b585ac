"""No space left, storage that cannot be written: a plain error, and the next run pays nothing more.

The home is a file system of a few megabytes that the test mounts, so these need to be root.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from batch_etl.effects import watch
from batch_etl.errors import BatchEtlError
from batch_etl_tests.batches import engine
from batch_etl_tests.batches.engine import Site
from batch_etl_tests.conftest import prerequisite
from batch_etl_tests.faults import pipeline
from batch_etl_tests.faults.agreement import disagreements
from batch_etl_tests.faults.deaths import Between
from batch_etl_tests.faults.scenarios import PACKED, records

SIZE_MB = 24


def call(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, gone after the test."""
    prerequisite(os.geteuid() == 0 and shutil.which("mount"), "the right to mount a file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs"]
    mounted = subprocess.run(["mount", *options, folder], capture_output=True, check=False)
    prerequisite(mounted.returncode == 0, "the right to mount a file system")
    try:
        yield folder
    finally:
        call("umount", "--lazy", folder)


@pytest.fixture
def site(disk: Path, tmp_path: Path) -> Iterator[Site]:
    """A home on the disk; the emulator and the source are elsewhere."""
    with engine.site(tmp_path) as elsewhere:
        opened = elsewhere.again(root=disk / "deep" / "home", lease_s=1.0)
        opened.root.parent.mkdir()
        pipeline.write_csv(opened, records())
        try:
            yield opened
        finally:
            opened.close()


def fill(disk: Path) -> None:
    """Leave no space on the disk."""
    with (disk / "filler").open("ab", buffering=0) as file:
        size = 2**20
        while size:
            try:
                file.write(b"\0" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2


def make_room(disk: Path) -> None:
    (disk / "filler").unlink()


@contextmanager
def when(name: str, act: Callable[[], None]) -> Iterator[None]:
    """For the body, have ``act`` done just before the effect of this name, the first time."""
    watch(Between(name, "before", act))
    try:
        yield
    finally:
        watch(None)


def settled(site: Site) -> None:
    """The next run ends well, and nothing was paid that a first one would not have paid."""
    pipeline.run(site, **PACKED)
    assert site.bill == (30, 30, 0)
    assert len(pipeline.table(site)) == 40
    assert disagreements(site, site.ledger()) == []


FULL = [
    "records renamed",
    "ledger migrated",
    "transform created",
    "manifest renamed",
    "batch planned",
    "create called",
    "batch submitting to submitted",
    "result chunk written",
    "answers renamed",
    "batch submitted to collected",
    "results renamed",
    "warehouse committed",
    "warehouse renamed",
]
"""Where the disk becomes full. A file that is whole already needs no more space to be renamed."""


@pytest.mark.parametrize("name", FULL)
def test_a_disk_that_becomes_full_stops_the_run_and_the_next_one_pays_nothing_more(
    site: Site, disk: Path, name: str
) -> None:
    with when(name, lambda: fill(disk)):
        try:
            pipeline.run(site, **PACKED)
        except (BatchEtlError, OSError) as error:
            said = str(error)
            assert any(word in said for word in ("space", "full", "disk I/O", "cannot")), said
            assert site.key not in said
        else:
            assert name.endswith("renamed"), "the run went on without space"
    site.close()
    make_room(disk)
    settled(site)


def test_on_read_only_storage_nothing_is_sent_and_the_error_names_it(
    site: Site, disk: Path
) -> None:
    pipeline.extracted(site, **PACKED)
    call("mount", "-o", "remount,ro", disk)
    with pytest.raises((BatchEtlError, OSError), match=r"ledger\.db|Read-only|cannot be opened"):
        site.run(site.transform(None, keys=pipeline.days(site), **PACKED))
    assert site.status()["http_calls"].get("create", 0) == 0
    site.close()
    call("mount", "-o", "remount,rw", disk)
    settled(site)


def test_storage_that_becomes_read_only_before_a_batch_is_collected_costs_nothing(
    site: Site, disk: Path
) -> None:
    pipeline.advanced(site, pipeline.extracted(site, packing={"max_requests": 100}))
    site.close()
    call("mount", "-o", "remount,ro", disk)
    with pytest.raises((BatchEtlError, OSError)):
        pipeline.run(site, packing={"max_requests": 100})
    site.close()
    call("mount", "-o", "remount,rw", disk)
    settled(site)


def test_a_ledger_file_that_cannot_be_written_sends_nothing_and_says_so(site: Site) -> None:
    transform = pipeline.extracted(site, **PACKED)
    site.ledger()
    site.close()
    path = site.home.ledger
    call("mount", "--bind", str(path), str(path))
    try:
        call("mount", "-o", "remount,bind,ro", str(path))
        with pytest.raises(BatchEtlError, match=r"ledger at sqlite:.*ledger\.db could not be used"):
            site.run(transform)
        site.close()
    finally:
        call("umount", str(path))
    assert site.status()["http_calls"].get("create", 0) == 0
    settled(site)
