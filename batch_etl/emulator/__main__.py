"""``python -m batch_etl.emulator``: serve until Ctrl-C or SIGTERM."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from batch_etl.emulator.server import serve
from batch_etl.emulator.settings import Pace, Settings


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0 after a signal, 2 for a wrong option, 1 when the port or the folder cannot be
    had.
    """
    options = parser().parse_args(arguments)
    try:
        serve(settings_of(options), options.host, options.port)
    except OSError as error:
        sys.stderr.write(f"the emulator cannot start: {error}\n")
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    known = argparse.ArgumentParser("batch_etl.emulator", description=__doc__)
    known.add_argument("--host", default="127.0.0.1")
    known.add_argument("--port", type=int, default=0, help="0 takes a free one")
    known.add_argument("--state", type=Path, required=True, help="folder of all it remembers")
    known.add_argument("--api-key", help="the only key accepted (default: any)")
    known.add_argument("--seed", type=int, default=0)
    known.add_argument(
        "--pace", "--end-s", dest="end_s", type=float, help="seconds from create to end (2)"
    )
    known.add_argument("--cancel-s", type=float, help="seconds from cancel to end (0.5)")
    known.add_argument("--retry-after-s", type=float, help="hint on polls (10)")
    known.add_argument("--gradual", action="store_true", default=None, help="counts move")
    known.add_argument("--max-requests", type=int, default=100_000)
    known.add_argument("--max-body-bytes", type=int, default=256_000_000)
    known.add_argument("--strict-version", choices=("create", "line"), default="line")
    known.add_argument("--upstream", help="answers come from this server's /v1/messages")
    known.add_argument("--upstream-key-file", type=Path, help="file with the upstream's key")
    known.add_argument("--upstream-concurrency", type=int, default=8)
    return known


def settings_of(options: argparse.Namespace) -> Settings:
    asked = {
        name: getattr(options, name) for name in ("end_s", "cancel_s", "retry_after_s", "gradual")
    }
    given = {name: value for name, value in asked.items() if value is not None}
    key_file: Path | None = options.upstream_key_file
    return Settings(
        state=options.state,
        api_key=options.api_key,
        seed=options.seed,
        pace=Pace(**given) if given else None,
        max_requests=options.max_requests,
        max_body_bytes=options.max_body_bytes,
        strict_version=options.strict_version,
        upstream_url=options.upstream,
        upstream_key=key_file.read_text().strip() if key_file else None,
        upstream_concurrency=options.upstream_concurrency,
    )


if __name__ == "__main__":
    sys.exit(main())
