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

from batch_etl import __version__, memory
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
_PARTITIONS = click.option(
    "--partition", "partitions", multiple=True, help="A partition key; repeatable."
)
_ALL_PARTITIONS = click.option(
    "--all-partitions", is_flag=True, help="All partitions that there are by now."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")

_ENDPOINT = click.option(
    "--endpoint", help="anthropic, emulator, ...: whose answers, where there are several."
)


def _limit(default: int, what: str) -> Callable[[Any], Any]:
    return click.option(
        "--limit", type=click.IntRange(min=1), default=default, show_default=True, help=what
    )


def _require_one_choice(partitions: tuple[str, ...], all_partitions: bool) -> None:
    if partitions and all_partitions:
        raise click.UsageError("give --partition or --all-partitions, not both")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="batch-etl")
def cli() -> None:
    """Put records through Claude's Message Batches API with Dagster."""


@cli.command()
@_HOME
@click.option("--pipeline", "pipelines", multiple=True, help="Only this pipeline; repeatable.")
@click.option("--all", "every", is_flag=True, help="All ready pipelines, in a minute or two.")
def demo(home: Path | None, pipelines: tuple[str, ...], every: bool) -> None:
    """Run two sample pipelines on the emulator and show what came of it. Needs no key."""
    from batch_etl.commands.demo import demo as command

    if pipelines and every:
        raise click.UsageError("give --pipeline or --all, not both")
    command(home, pipelines, every=every)


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
@_PARTITIONS
@_ALL_PARTITIONS
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

    _require_one_choice(partitions, all_partitions)
    command(pipeline, home, partitions, all_partitions, defs, as_json=as_json)


@cli.command()
@click.argument("pipeline")
@_HOME
@_PARTITIONS
@_ALL_PARTITIONS
@_DEFS
@_JSON
def explain(
    pipeline: str,
    home: Path | None,
    partitions: tuple[str, ...],
    all_partitions: bool,
    defs: Path | None,
    as_json: bool,
) -> None:
    """Tell what a run of PIPELINE would send, why, and what it would cost. Sends nothing."""
    from batch_etl.commands.explain import explain as command

    _require_one_choice(partitions, all_partitions)
    command(pipeline, home, partitions, all_partitions, defs, as_json=as_json)


@cli.command()
@click.argument("name")
@_HOME
@_DEFS
@click.option(
    "--approve", is_flag=True, help="Keep the correct answers as the known good ones, if it passes."
)
@_JSON
def evaluate(name: str, home: Path | None, defs: Path | None, approve: bool, as_json: bool) -> None:
    """Run the evaluation NAME, score its variants, and exit with 1 if a gate does not hold."""
    from batch_etl.commands.evaluate import evaluate as command

    command(name, home, defs, approve=approve, as_json=as_json)


@cli.command()
@click.argument("pipeline")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@_HOME
@_DEFS
@click.option("--key", help="Names the delivery; by default its content does.")
@_JSON
def enqueue(
    pipeline: str,
    files: tuple[str, ...],
    home: Path | None,
    defs: Path | None,
    key: str | None,
    as_json: bool,
) -> None:
    """Put the items of each FILE (JSON Lines, CSV, Parquet; - for stdin) into PIPELINE's queue."""
    from batch_etl.commands.enqueue import enqueue as command

    command(home, pipeline, files, defs, key, as_json=as_json)


@cli.command()
@click.argument("pipeline")
@_HOME
@_limit(10, "How many drains, newest first.")
@_JSON
def queue(pipeline: str, home: Path | None, limit: int, as_json: bool) -> None:
    """Show how many items wait for PIPELINE, since when, and its last drains."""
    from batch_etl.commands.queue import show as command

    command(home, pipeline, limit, as_json=as_json)


@cli.command()
@click.argument("pipeline")
@_HOME
def cancel(pipeline: str, home: Path | None) -> None:
    """Cancel what PIPELINE has open at the API; what was answered by then is kept."""
    from batch_etl.commands.cancel import cancel as command

    command(home, pipeline)


@cli.command()
@click.argument("batch")
@click.option(
    "--buy-again/--give-up",
    required=True,
    default=None,
    help="Send its requests again, or leave their records to review.",
)
@_HOME
def resolve(batch: str, buy_again: bool, home: Path | None) -> None:
    """Decide what becomes of a BATCH that the API does not have any more."""
    from batch_etl.commands.resolve import resolve as command

    command(home, batch, buy_again=buy_again)


@cli.command()
@_HOME
@click.option("--pipeline", help="Only this pipeline.")
@_limit(20, "How many transforms, newest first.")
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


@cli.command()
@click.argument("name", metavar="[PIPELINE]", required=False)
@_HOME
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    required=True,
    help="FILE.parquet or FILE.csv; with --all or --column a folder.",
)
@click.option("--column", help="This column's texts, each row's as a file FOLDER/<id>.md.")
@click.option("--suffix", default=".md", show_default=True, help="With --column.")
@click.option(
    "--all", "everything", is_flag=True, help="Every table and view, into the folder --to."
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["parquet", "csv"]),
    default="parquet",
    show_default=True,
    help="With --all.",
)
@_ENDPOINT
def export(
    name: str | None,
    home: Path | None,
    to: Path,
    column: str | None,
    suffix: str,
    everything: bool,
    kind: str,
    endpoint: str | None,
) -> None:
    """Write the table of PIPELINE, or a view by its name, as a Parquet or CSV file."""
    from batch_etl.commands import export as command

    if everything == (name is not None):
        raise click.UsageError("name a pipeline, table or view; or take --all")
    if name is None:
        if column is not None:
            raise click.UsageError("--column is of one pipeline's table, not of --all")
        command.export_all(home, to, kind, endpoint)
    elif column is not None:
        command.export_column(home, name, column, to, suffix, endpoint)
    else:
        command.export_one(home, name, to, endpoint)


@cli.group()
def review() -> None:
    """Work through the records that have no answer: list, export, apply, requeue."""


@review.command("list")
@click.argument("pipeline", required=False)
@_HOME
@_limit(20, "How many records.")
@_ENDPOINT
@_JSON
def review_list(
    pipeline: str | None, home: Path | None, limit: int, endpoint: str | None, as_json: bool
) -> None:
    """Show how much is in review and why; of one PIPELINE, which records."""
    from batch_etl.commands.review import list_queue as command

    command(home, pipeline, endpoint, limit, as_json=as_json)


@review.command("export")
@click.argument("pipeline")
@_HOME
@click.option("--to", type=click.Path(path_type=Path), required=True, help="FILE.csv.")
@click.option("--decided", is_flag=True, help="Also what people have decided, to change it.")
@_ENDPOINT
def review_export(
    pipeline: str, home: Path | None, to: Path, decided: bool, endpoint: str | None
) -> None:
    """Write the review queue of PIPELINE as CSV with empty columns for the answers."""
    from batch_etl.commands.review import export_queue as command

    command(home, pipeline, to, endpoint, decided=decided)


@review.command("apply")
@click.argument("pipeline")
@click.argument("sheet", type=click.Path(path_type=Path))
@_HOME
@click.option("--by", help="Who decided; by default the user who runs this.")
@_ENDPOINT
def review_apply(
    pipeline: str, sheet: Path, home: Path | None, by: str | None, endpoint: str | None
) -> None:
    """Take the answers filled into SHEET, an exported CSV, into the table of PIPELINE."""
    from batch_etl.commands.review import apply_sheet as command

    command(home, pipeline, sheet, endpoint, by)


@cli.command()
@_HOME
@click.option(
    "--to", type=click.Path(dir_okay=False, path_type=Path), help="FILE.html; else in the home."
)
@click.option(
    "--days", type=click.IntRange(1, 3660), default=90, show_default=True, help="How far back."
)
def report(home: Path | None, to: Path | None, days: int) -> None:
    """Write cost, volume, quality and latency over time as one HTML page."""
    from batch_etl.commands.report import report as command

    command(home, to, days)


@review.command("requeue")
@click.argument("pipeline")
@_HOME
@click.option("--partition", "partitions", multiple=True, help="Only of this one; repeatable.")
@click.option("--id", "ids", multiple=True, help="Only the record with this id; repeatable.")
@click.option("--outcome", "outcomes", multiple=True, help="Only Refused, say; repeatable.")
@click.option("--model", help="The model to ask, in the place of the task's.")
@click.option(
    "--prompt",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with the template, in the place of the task's.",
)
@click.option("--max-tokens", type=click.IntRange(min=1), help="In the place of the task's.")
@_DEFS
@_JSON
def review_requeue(
    pipeline: str,
    home: Path | None,
    partitions: tuple[str, ...],
    ids: tuple[str, ...],
    outcomes: tuple[str, ...],
    model: str | None,
    prompt: Path | None,
    max_tokens: int | None,
    defs: Path | None,
    as_json: bool,
) -> None:
    """Ask the records of PIPELINE in review once more, with another model or prompt."""
    from batch_etl.commands.requeue import Otherwise
    from batch_etl.commands.requeue import requeue as command
    from batch_etl.warehouse.review import Chosen

    chosen = Chosen(partitions, ids, outcomes)
    otherwise = Otherwise(model, prompt, max_tokens)
    command(home, pipeline, chosen, otherwise, defs, as_json=as_json)


@cli.command()
@_HOME
@click.option("--to", type=click.Path(dir_okay=False, path_type=Path), help="FILE.md; else stdout.")
@_ENDPOINT
def dictionary(home: Path | None, to: Path | None, endpoint: str | None) -> None:
    """Print all tables, views and columns of the warehouse with their meaning, as Markdown."""
    from batch_etl.commands.dictionary import dictionary as command

    command(home, to, endpoint)


def main() -> None:
    """The entry point: runs :data:`cli` and turns errors into one line and an exit code."""
    memory.lean_process()
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
