"""The command ``batch-etl``.

Each command is a module of its own, imported when it is asked for: ``--help``, ``status`` and
``emulator`` start without loading Dagster. An error that the user can act on is one line on stderr
and exit code 1; wrong usage is exit code 2. Nothing else is written to stderr but progress.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from batch_etl import __version__
from batch_etl.errors import BatchEtlError

__all__ = ["cli", "main"]

_HOME = click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of all state, instead of BATCH_ETL_HOME (default: data).",
)
_DEFS = click.option(
    "--defs",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with your own pipelines' YAML, instead of the ready ones.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="batch-etl")
def cli() -> None:
    """Put records through Claude's Message Batches API with Dagster."""


@cli.command()
@_HOME
@click.option("--pipeline", "pipelines", multiple=True, help="Only this pipeline; repeatable.")
def demo(home: Path | None, pipelines: tuple[str, ...]) -> None:
    """Run the sample pipelines on the emulator and show what came of it. Needs no key."""
    from batch_etl.commands.demo import demo as command

    command(home, pipelines)


@cli.command()
@_HOME
@click.option("--port", default=3000, show_default=True, help="Port of the Dagster UI.")
@_DEFS
def dev(home: Path | None, port: int, defs: Path | None) -> None:
    """Start the Dagster UI with the emulator; Ctrl-C ends both.

    With BATCH_ETL_ENDPOINT=anthropic the UI runs on Claude and no emulator is started.
    """
    from batch_etl.commands.dev import dev as command

    command(home, port, defs)


@cli.command()
@click.argument("pipeline")
@_HOME
@click.option("--partition", "partitions", multiple=True, help="A partition key; repeatable.")
@click.option("--all-partitions", is_flag=True, help="All partitions that there are by now.")
@_DEFS
@_JSON
def run(
    pipeline: str,
    home: Path | None,
    partitions: tuple[str, ...],
    all_partitions: bool,
    defs: Path | None,
    as_json: bool,
) -> None:
    """Run PIPELINE once, to its end, in this process: for cron, CI and containers.

    The exit code is 0 only if every record reached its terminal state: answered, or in review.
    """
    from batch_etl.commands.run import run as command

    if partitions and all_partitions:
        raise click.UsageError("give --partition or --all-partitions, not both")
    command(pipeline, home, partitions, all_partitions, defs, as_json=as_json)


@cli.command()
@click.argument("pipeline")
@_HOME
def cancel(pipeline: str, home: Path | None) -> None:
    """Cancel what PIPELINE has open at the API; what was answered by then is kept."""
    from batch_etl.commands.cancel import cancel as command

    command(home, pipeline)


@cli.command()
@_HOME
@click.option("--pipeline", help="Only this pipeline.")
@click.option("--limit", default=20, show_default=True, help="How many transforms, newest first.")
@_JSON
def status(home: Path | None, pipeline: str | None, limit: int, as_json: bool) -> None:
    """Show transforms and their batches, as the ledger has them."""
    from batch_etl.commands.status import status as command

    command(home, pipeline, limit, as_json=as_json)


@cli.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def emulator(arguments: tuple[str, ...]) -> None:
    """Serve a Message Batches API on loopback. `batch-etl emulator --help` lists its options."""
    from batch_etl.commands.emulator import serve

    serve(list(arguments))


@cli.command()
@_HOME
@_DEFS
@_JSON
def doctor(home: Path | None, defs: Path | None, as_json: bool) -> None:
    """Check settings, key, endpoint, disk and versions; exit 1 if something is wrong."""
    from batch_etl.commands.doctor import doctor as command

    command(home, defs, as_json=as_json)


def main() -> None:
    """The entry point: runs :data:`cli` and turns errors into one line and an exit code."""
    sys.exit(_guarded(lambda: cli(standalone_mode=False)))


def _guarded(command: Callable[[], Any]) -> int:
    try:
        code = command()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo(
            "Interrupted. What was sent goes on: run again to pick it up, or `batch-etl cancel`.",
            err=True,
        )
        return 130
    except BatchEtlError as error:
        click.secho(f"Error: {error}", fg="red", err=True)
        return 1
    except BrokenPipeError:
        return 141
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
