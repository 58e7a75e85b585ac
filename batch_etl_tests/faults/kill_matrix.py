"""The kill matrix: every effect, before and after, in the first and in a later attempt, killed.

``python -m batch_etl_tests.faults.kill_matrix`` runs a scenario undisturbed first, which says what
the end must be and which points it passes; then once for each of those points: a process is killed
there (SIGKILL), and another process does the same again. The ends must be equal: the rows in
DuckDB, and what the emulator received and billed. No batch may be left at the emulator that the
ledger does not know; ledger, files and table must agree. Both on SQLite and on PostgreSQL.

Every point of every effect has to be cut in some scenario: one that none passes is told of, and is
a failure.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from batch_etl.effects import EFFECTS, When, watch
from batch_etl.emulator.server import running
from batch_etl.emulator.settings import Pace
from batch_etl_tests.batches import postgres
from batch_etl_tests.batches.engine import Site
from batch_etl_tests.faults import pipeline
from batch_etl_tests.faults.agreement import disagreements
from batch_etl_tests.faults.deaths import Count, Death, Phase
from batch_etl_tests.faults.scenarios import SCENARIOS, Scenario, records

WHENS: tuple[When, ...] = ("before", "after")
PATIENCE_S = 120.0
GRACE_S = 2.0
"""The emulator may still be at work on the create of a process that was just killed."""

_FORKS = multiprocessing.get_context("forkserver")
_LATE = ("pandas", "genai_prices.data", "httpcore", "pyarrow.acero", "encodings.idna", "anyio.abc")
"""What a run imports when it is first used; here each of hundreds of processes would."""
_FORKS.set_forkserver_preload([__name__, *_LATE])


@dataclass(frozen=True)
class Case:
    """One scenario on one database, killed at one point, or (``death`` None) undisturbed."""

    scenario: Scenario
    database: str
    death: tuple[str, When, Phase] | None = None
    nth: int = 1

    def __str__(self) -> str:
        if self.death is None:
            return f"{self.scenario.name} on {self.database}"
        name, when, phase = self.death
        times = f", passing {self.nth}" if self.nth > 1 else ""
        return f"{self.scenario.name} on {self.database}: {when} {name!r} ({phase}){times}"


@dataclass
class End:
    """What a case came to. ``problems`` are sentences."""

    passed: Counter[tuple[str, When, Phase]] = field(default_factory=Counter)
    table: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    bill: tuple[int, ...] = ()
    """Requests received, billed, billed twice; creates accepted."""
    problems: list[str] = field(default_factory=list[str])


def act(site: Site, name: str, death: Death | None, told: Any) -> None:
    """The child's work: the scenario's act, killed or to its end."""
    (scenario,) = [one for one in SCENARIOS if one.name == name]
    logging.disable(logging.WARNING)
    watcher = death or Count()
    watch(scenario.watcher(site, watcher))
    scenario.act(site)
    watch(None)
    told.send(watcher.passed if isinstance(watcher, Count) else None)
    site.close()


def _in_child(site: Site, scenario: Scenario, death: Death | None) -> tuple[int | None, Any]:
    """Exit code, and what the child told."""
    here, there = _FORKS.Pipe(duplex=False)
    process = _FORKS.Process(target=act, args=(site.again(), scenario.name, death, there))
    process.start()
    there.close()
    try:
        process.join(PATIENCE_S)
        try:
            told = here.recv() if here.poll() else None
        except EOFError:
            told = None
        return process.exitcode, told
    finally:
        process.kill()
        process.join()
        process.close()
        here.close()


@contextmanager
def _site(folder: Path, ledger_url: str | None) -> Iterator[Site]:
    pace = Pace(end_s=0.0, cancel_s=0.0, retry_after_s=0.01)
    with running(folder / "emulator", pace=pace) as url:
        site = Site(folder / "home", url, grace_s=GRACE_S, ledger_url=ledger_url)
        try:
            yield site
        finally:
            site.close()


def play(case: Case, ledger_url: str | None) -> End:
    """Prepare, act (killed, then again), and look at what there is."""
    folder = Path(tempfile.mkdtemp(prefix="batch_etl_kill_"))
    try:
        with _site(folder, ledger_url) as site:
            return _played(case, site)
    except Exception as error:  # noqa: BLE001 - the other cases go on
        return End(problems=[f"{type(error).__name__}: {error}"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _played(case: Case, site: Site) -> End:
    end = End()
    pipeline.write_csv(site, records())
    case.scenario.prepare(site)
    site.close()
    site.faults(*case.scenario.faults)
    if case.death is not None:
        name, when, phase = case.death
        code, _ = _in_child(site, case.scenario, Death(name, when, phase, case.nth))
        if code != -signal.SIGKILL:
            end.problems.append(f"the process was to be killed there and ended with {code}")
    code, told = _in_child(site, case.scenario, None)
    if code != 0:
        end.problems.append(f"the run ended with {code}")
        return end
    end.passed = told
    end.table = pipeline.table(site)
    status = site.status()
    names = ("requests_received", "requests_billed", "requests_billed_twice", "creates_accepted")
    end.bill = tuple(status[name] for name in names)
    found = disagreements(site, site.ledger())
    end.problems += [one for one in found if not (case.scenario.orphans and "orphan" in one)]
    return end


def compared(case: Case, end: End, undisturbed: End) -> list[str]:
    """Sentences: how a case's end differs from that of the undisturbed run."""
    problems = list(end.problems)
    if not problems and end.bill != undisturbed.bill:
        problems.append(f"billed {end.bill}, undisturbed {undisturbed.bill}")
    if not problems and end.table != undisturbed.table:
        pairs = zip(end.table, undisturbed.table, strict=False)
        different = [(a, b) for a, b in pairs if a != b][:1]
        counts = f"{len(end.table)} rows, undisturbed {len(undisturbed.table)}"
        problems.append(f"the table differs: {counts}; {different}")
    return [f"{case}: {problem}" for problem in problems]


@dataclass
class Report:
    """What the matrix came to."""

    effects: int = 0
    points: int = 0
    cases: int = 0
    problems: list[str] = field(default_factory=list[str])
    """One sentence for each thing that is wrong."""
    not_passed: list[str] = field(default_factory=list[str])
    """Points that no scenario passes."""
    by_scenario: dict[str, int] = field(default_factory=dict[str, int])
    """Cases of each scenario and database."""


Urls = dict[str, Callable[[], str | None]]


def matrix(
    urls: Urls, at_once: int, choose: Callable[[list[Case]], list[Case]], *, every: bool
) -> Report:
    """Play the cases that are chosen of all. ``every``: cut each passing, not only the first."""
    report = Report(effects=len(EFFECTS), points=len(EFFECTS) * len(WHENS))
    with ThreadPoolExecutor(at_once) as pool:

        def played(cases: Iterable[Case]) -> Iterator[tuple[Case, End]]:
            cases = list(cases)
            return zip(cases, pool.map(lambda c: play(c, urls[c.database]()), cases), strict=True)

        whole = [Case(scenario, database) for scenario in SCENARIOS for database in urls]
        undisturbed = {(case.scenario.name, case.database): end for case, end in played(whole)}
        for case in whole:
            end = undisturbed[case.scenario.name, case.database]
            report.problems += [f"{case}: {problem}" for problem in end.problems]
        cases = choose(all_cases(undisturbed, urls, every=every))
        for case, end in played(cases):
            reference = undisturbed[case.scenario.name, case.database]
            report.problems += compared(case, end, reference)
            label = f"{case.scenario.name} on {case.database}"
            report.by_scenario[label] = report.by_scenario.get(label, 0) + 1
    report.cases = len(cases)
    passed = {(name, when) for end in undisturbed.values() for name, when, _ in end.passed}
    report.not_passed = [
        f"{when} {name!r}" for name in EFFECTS for when in WHENS if (name, when) not in passed
    ]
    return report


def all_cases(undisturbed: dict[tuple[str, str], End], urls: Urls, *, every: bool) -> list[Case]:
    """Of each scenario the points of its phases, but of the third and later ones only what no
    scenario before them passes, or what they name.
    """
    cases: list[Case] = []
    for database in urls:
        seen: set[tuple[str, When]] = set()
        for number, scenario in enumerate(SCENARIOS):
            passed = undisturbed[scenario.name, database].passed
            for (name, when, phase), times in sorted(passed.items()):
                wanted = number < 2 or (name, when) not in seen or name in scenario.also
                if phase in scenario.phases and wanted:
                    death = (name, when, phase)
                    nths = range(1, times + 1) if every else (1,)
                    cases += [Case(scenario, database, death, nth) for nth in nths]
            seen.update((name, when) for name, when, _ in passed)
    return cases


def covering(cases: list[Case]) -> list[Case]:
    """Each point once; where there is a choice, of databases and attempts by turns."""
    by_point: dict[tuple[str, When], list[Case]] = {}
    for case in cases:
        assert case.death is not None
        by_point.setdefault(case.death[:2], []).append(case)
    return [found[number % len(found)] for number, found in enumerate(by_point.values())]


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.disable(logging.WARNING)  # the faults are on purpose
    with ExitStack() as stack:
        urls: Urls = {}
        if options.database in ("sqlite", "both"):
            urls["SQLite"] = lambda: None
        found = postgres.programs()
        if options.database in ("postgresql", "both"):
            if found is None:
                sys.exit("PostgreSQL is not installed (apt-get install postgresql)")
            server, lock = stack.enter_context(postgres.running(found)), threading.Lock()

            def new_database() -> str:
                with lock:
                    return server.new_database()

            urls["PostgreSQL"] = new_database

        def choose(cases: list[Case]) -> list[Case]:
            wanted = [case for case in cases if options.only in str(case)]
            return covering(wanted) if options.cover else wanted

        report = matrix(urls, options.at_once, choose, every=options.every)
    print(json.dumps(asdict(report), indent=1) if options.json else told(report))
    return 1 if report.problems or report.not_passed else 0


def told(report: Report) -> str:
    lines = [f"{label}: {cases} cases" for label, cases in report.by_scenario.items()]
    lines += [f"PROBLEM {problem}" for problem in report.problems]
    lines += [f"NEVER PASSED {point}" for point in report.not_passed]
    lines.append(
        f"{report.effects} effects, {report.points} points, {report.cases} cases, "
        f"{len(report.problems)} problems"
    )
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    known = argparse.ArgumentParser("kill_matrix", description=(__doc__ or "").partition("\n")[0])
    known.add_argument("--database", choices=("sqlite", "postgresql", "both"), default="both")
    known.add_argument("--at-once", type=int, default=os.cpu_count() or 1, help="cases in parallel")
    known.add_argument("--only", default="", help="cases whose name holds this")
    known.add_argument("--cover", action="store_true", help="each point once, not everywhere")
    known.add_argument(
        "--every", action="store_true", help="each passing of a point, not the first"
    )
    known.add_argument("--json", action="store_true")
    return known


if __name__ == "__main__":
    sys.exit(main())
