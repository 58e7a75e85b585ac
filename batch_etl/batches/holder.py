"""Who holds a lease: a process, named so that another on its machine can tell that it is gone.

A lease expires after minutes; a run that is started again right after its process was killed
should not wait for that. The name holds the host, the machine's boot, the process-id namespace (a
container has its own), the process's id and its start time: where all of that is this machine's and
no such process lives, the holder is dead for certain. Elsewhere, without ``/proc``, and where it
hides a process (``hidepid``), nothing is certain and the lease's end is waited for.
"""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

_PARTS = 5


def this_process() -> str:
    """A new name for a holder in this process; no two are equal."""
    place = f"{_machine()}:{os.getpid()}:{_started(os.getpid()) or ''}"
    return f"{place}:{uuid.uuid4().hex[:8]}"


def is_gone(holder: str) -> bool:
    """Whether the process of this name is dead for certain."""
    parts = holder.split(":")
    if len(parts) != _PARTS or parts[0] != _machine().split(":")[0] or not parts[3]:
        return False
    if parts[1] != _machine().split(":")[1] or not parts[2].isdecimal():
        return False
    pid = int(parts[2])
    started = _started(pid)
    return not _exists(pid) if started is None else started != parts[3]


def _machine() -> str:
    """Host, and boot with process-id namespace; two parts."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return f"{socket.gethostname()}:"
    digits = "".join(filter(str.isdigit, namespace))
    return f"{socket.gethostname()}:{boot[:8]}-{digits}"


def _started(pid: int) -> str | None:
    """When the process started, in clock ticks since boot; "" for a zombie, None if not shown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def _exists(pid: int) -> bool:
    """Whether there is such a process, be it one of another user."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
