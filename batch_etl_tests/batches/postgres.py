"""A PostgreSQL server of the tests' own: in a temporary folder, on a free port of 127.0.0.1.

Its programs are the system's (Debian: ``apt-get install postgresql``). PostgreSQL refuses to run as
root, so there it runs as the user that Debian's package makes, or as nobody. It is ended by its
process id, and ends by itself when the tests are killed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import re
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa
import sqlalchemy.exc

_NAME = "batch_etl"
_START_S = 60.0
_UNSAFE_AND_QUICK = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


def programs() -> Path | None:
    """The folder with ``initdb`` and ``postgres``, of the newest version; None without one."""
    found = [
        path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()
    ]
    if found:
        return max(found, key=lambda path: [int(n) for n in re.findall(r"\d+", path.parent.name)])
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


@dataclass(frozen=True)
class Server:
    """A running server; every test has a database of its own on it."""

    port: int
    password: str = field(repr=False)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1), repr=False)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg2://{_NAME}:{self.password}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The URL of an empty database."""
        name = f"ledger_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str) -> None:
        engine = sa.create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(sa.text(statement))
        finally:
            engine.dispose()


@contextlib.contextmanager
def running(programs: Path) -> Iterator[Server]:
    """A server that is ended, and its folder removed, at the end of the ``with``."""
    folder = Path(tempfile.mkdtemp(prefix="batch_etl_postgres_"))
    try:
        user = _unprivileged()
        if user is not None:
            os.chown(folder, user.pw_uid, user.pw_gid)
        password = secrets.token_hex(16)
        _initialize(programs, folder, user, password)
        with _started(programs, folder, user, password) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged() -> pwd.struct_passwd | None:
    """Whom to run as where the tests run as root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


def _popen(
    command: list[str | Path], folder: Path, user: pwd.struct_passwd | None, log: int
) -> subprocess.Popen[bytes]:
    environ = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "Asia/Tokyo"}
    return subprocess.Popen(
        command,
        cwd=folder,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        user=user.pw_uid if user else None,
        group=user.pw_gid if user else None,
        extra_groups=[] if user else None,
    )


def _initialize(
    programs: Path, folder: Path, user: pwd.struct_passwd | None, password: str
) -> None:
    secret = folder / "password"
    secret.write_text(password, encoding="ascii")
    secret.chmod(0o600)
    if user is not None:
        os.chown(secret, user.pw_uid, user.pw_gid)
    command = [programs / "initdb", "-D", folder / "data", "-U", _NAME, "--pwfile", secret]
    options = ["--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"]
    process = _popen([*command, *options], folder, user, subprocess.PIPE)
    told = process.communicate()[0].decode()
    assert process.returncode == 0, told


@contextlib.contextmanager
def _started(
    programs: Path, folder: Path, user: pwd.struct_passwd | None, password: str
) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        server = Server(probe.getsockname()[1], password)
    settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", *_UNSAFE_AND_QUICK]
    command: list[str | Path] = [*_with_us(), programs / "postgres", "-D", folder / "data"]
    command += ["-p", str(server.port), *(part for one in settings for part in ("-c", one))]
    with open(folder / "log", "wb") as log:
        process = _popen(command, folder, user, log.fileno())
    try:
        _wait(server, process, folder / "log")
        yield server
    finally:
        _end(process)


def _with_us() -> list[str]:
    """What makes a program end when the tests are killed, where the system has it (Linux)."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "INT"] if setpriv else []


def _wait(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until it answers."""
    until = time.monotonic() + _START_S
    while True:
        try:
            return server.execute("SELECT 1")
        except sqlalchemy.exc.OperationalError:
            told = log.read_text("utf-8", "replace")
            assert process.poll() is None, f"PostgreSQL ended at its start: {told}"
            assert time.monotonic() < until, f"PostgreSQL does not answer: {told}"
            time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    """A fast shutdown, which disconnects whoever is connected."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
