"""Seeded chaos: runs under random faults, kills and changes, and what must hold at the end.

``python -m batch_etl_tests.faults.soak --seeds 200`` plays as many scenarios; each seed is one. A
scenario is a world (an emulator in a process of its own, a home, one or two pipelines over two
days of records with texts in common) and a few turns. In a turn the records, the task or the
packing may change, faults of calls come into force, one or two processes run a pipeline (the same,
or different ones), and each may be killed: at a random point of a random effect, or at a random
time. Meanwhile the emulator's clock is moved on and the emulator may be killed and started again.
Faults of lines hold in the whole scenario. In the end the calls are undisturbed, every pipeline is
run to its end, and:

* nothing was billed twice, and all that was billed is in the ledger's count;
* each question has one answer that was bought, however many runs asked it;
* each record has one terminal state, in results and table;
* no batch and no transform is open, and every batch at the emulator is in the ledger;
* ledger, answers and raw files agree (``agreement.py``);
* another run receives, bills and changes nothing.

A seed decides all that is drawn; when exactly a process is killed at a time, the machine does.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq

from batch_etl.batches.outcome import BILLED
from batch_etl.effects import EFFECTS, When, watch
from batch_etl.errors import BatchEtlError
from batch_etl_tests.batches import postgres
from batch_etl_tests.batches.engine import Site
from batch_etl_tests.faults import pipeline
from batch_etl_tests.faults.agreement import disagreements, states
from batch_etl_tests.faults.deaths import Death, Phase
from batch_etl_tests.faults.pipeline import Record
from batch_etl_tests.faults.server import Server, server

PATIENCE_S = 120.0
TURN_S = 20.0
"""A run may wait for what another has planned and not sent, and that one may be dead: so long."""
SHORT = range(1, 13)
"""The seeds that ``make test`` plays."""

WHENS: tuple[When, ...] = ("before", "after")
PHASES: tuple[Phase, ...] = ("first", "first", "retry")
PROMPTS = ("Classify:\n{{ text }}", "Judge:\n{{ text }}")
TWINS = ("reviews", "twin")

LINE_FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "expire_lines", "attempts": 1},
    {"kind": "error_lines", "type": "api_error", "attempts": 1},
    {"kind": "error_lines", "type": "overloaded_error", "attempts": 1},
    {"kind": "missing_lines", "attempts": 1},
    {"kind": "cancel_lines", "attempts": 1},
    {"kind": "invalid_lines", "how": "not_json", "attempts": 1},
    {"kind": "invalid_lines", "how": "wrong_shape", "attempts": 1},
    {"kind": "truncate_lines", "attempts": 1},
    {"kind": "refuse_lines"},
    {"kind": "duplicate_lines"},
    {"kind": "thinking_first"},
    {"kind": "invalid_lines", "how": "fenced"},
)

ALL_OF_THEM = frozenset({"expire_lines", "error_lines", "invalid_lines", "truncate_lines"})
"""What may strike every line. Results without any line prove nothing: a person would decide."""

CALL_FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "drop", "when": "before"},
    {"kind": "drop", "when": "after"},
    {"kind": "error", "route": "create", "status": 500, "when": "after"},
    {"kind": "error", "route": "create", "status": 504, "when": "before"},
    {"kind": "error", "route": "create", "status": 429},
    {"kind": "error", "route": "create", "status": 529},
    {"kind": "error", "route": "create", "status": 400},
    {"kind": "edge_413"},
    {"kind": "html", "route": "create"},
    {"kind": "cut", "route": "create"},
    {"kind": "cut", "route": "results", "fraction": 0.6},
    {"kind": "cut", "route": "results", "fraction": 0.3, "clean": True},
    {"kind": "drop", "route": "results", "when": "before"},
    {"kind": "error", "route": "results", "status": 404},
    {"kind": "error", "route": "retrieve", "status": 404},
    {"kind": "error", "route": "retrieve", "status": 500},
    {"kind": "error", "route": "list", "status": 503},
    {"kind": "drop", "route": "list", "when": "before"},
    {"kind": "slow", "route": "create", "delay_s": 0.2},
    {"kind": "no_content_type"},
    {"kind": "unknown_fields"},
)

_FORKS = multiprocessing.get_context("forkserver")
_LATE = ("pandas", "genai_prices.data", "httpcore", "pyarrow.acero", "encodings.idna", "anyio.abc")
_FORKS.set_forkserver_preload([__name__, *_LATE])


def draw_records(draw: random.Random, name: str) -> list[Record]:
    """Texts are few and drawn again and again, from a pool that all pipelines share."""
    count, texts = draw.randint(1, 60), draw.randint(1, 40)
    return [
        {"id": f"{name}{n}", "text": f"I love item {draw.randrange(texts)}", "day": "ab"[n % 2]}
        for n in range(count)
    ]


def draw_lines(draw: random.Random) -> list[dict[str, Any]]:
    chosen = draw.sample(LINE_FAULTS, draw.randint(0, 3))
    return [
        {
            **fault,
            "fraction": draw.choice([0.1, 0.3, 1.0 if fault["kind"] in ALL_OF_THEM else 0.2]),
            "seed": n,
        }
        for n, fault in enumerate(chosen)
    ]


def draw_calls(draw: random.Random) -> list[dict[str, Any]]:
    chosen = draw.sample(CALL_FAULTS, draw.randint(0, 3))
    return [{**fault, "times": draw.randint(1, 3), "skip": draw.randint(0, 2)} for fault in chosen]


@dataclass(frozen=True)
class Ask:
    """What one process is to do."""

    pipeline: str
    task: dict[str, Any]
    load: bool
    death: Death | None = None
    kill_after_s: float | None = None


def work(site: Site, ask: Ask, told: Any) -> None:
    """A process's work; it tells what it came to: done, superseded, or an error's sentence."""
    logging.disable(logging.CRITICAL)
    watch(ask.death)
    try:
        told.send(("ok", run(site, ask)))
    except (BatchEtlError, OSError) as error:
        told.send(("error", f"{type(error).__name__}: {error}"))
    except Exception:  # noqa: BLE001 - whatever it is, it is told
        told.send(("bug", traceback.format_exc()))
    finally:
        watch(None)
        site.close()


def run(site: Site, ask: Ask) -> str:
    transform = pipeline.extracted(site, ask.pipeline, **ask.task)
    runner = site.runner()
    identity = runner.open(transform)
    until = time.monotonic() + PATIENCE_S
    while True:
        progress = runner.advance(identity, transform)
        if progress.status == "superseded":
            return "superseded"
        if progress.done:
            if ask.load:
                pipeline.loaded(site, transform)
            return "done"
        assert time.monotonic() < until, f"not done after {PATIENCE_S:g} s: {progress}"
        time.sleep(min(progress.wait_s, 0.02))


@dataclass
class Running:
    """A process at work."""

    ask: Ask
    process: Any
    pipe: Any
    kill_at: float | None

    def told(self) -> tuple[str, str] | None:
        try:
            return self.pipe.recv() if self.pipe.poll() else None
        except EOFError:
            return None


@dataclass
class World:
    """One scenario as it goes."""

    seed: int
    site: Site
    server: Server
    draw: random.Random
    story: list[str] = field(default_factory=list[str])
    problems: list[str] = field(default_factory=list[str])
    names: tuple[str, ...] = ()
    lines: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    asked: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    """(prompt, text) of everything that any run may have asked."""
    kills: int = 0
    undecided: bool = False

    def play(self) -> None:
        self.names = TWINS[: self.draw.randint(1, 2)]
        self.lines = draw_lines(self.draw)
        self.tell(f"lines: {self.lines}")
        for name in self.names:
            self.tasks[name] = {"prompt": PROMPTS[0], "packing": {"max_requests": 100}}
            self.new_records(name)
        for number in range(self.draw.randint(2, 4)):
            self.tell(f"turn {number + 1}")
            self.turn()
        self.end()

    def tell(self, sentence: str) -> None:
        self.story.append(sentence)

    # a turn

    def new_records(self, name: str) -> None:
        records = draw_records(self.draw, name)
        pipeline.write_csv(self.site, records, name)
        self.tell(f"{name}: {len(records)} records")

    def turn(self) -> None:
        for name in self.names:
            self.change(name)
        calls = draw_calls(self.draw)
        self.tell(f"calls: {calls}")
        self.site.faults(*self.lines, *calls)
        self.site.pace(end_s=self.draw.choice([0.0, 0.0, 60.0]))
        asks = [self.ask(self.draw.choice(self.names)) for _ in range(self.draw.randint(1, 2))]
        restart = self.draw.random() < 0.3
        self.tell(f"asks: {asks}{', the emulator is killed' if restart else ''}")
        running = [self.started(ask) for ask in asks]
        try:
            self.until_over(running, restart_at=self.draw.uniform(0.05, 1.0) if restart else None)
        finally:
            for one in running:
                one.process.kill()
                one.process.join()
        for one in running:
            self.judge(one)

    def change(self, name: str) -> None:
        what = self.draw.choice(["nothing", "nothing", "records", "task", "packing"])
        task = self.tasks[name]
        if what == "records":
            self.new_records(name)
        if what == "task":
            task["prompt"] = self.draw.choice(PROMPTS)
        if what == "packing":
            task["packing"] = {"max_requests": self.draw.choice([3, 7, 20, 100])}
        self.tell(f"{name} changes {what}: {task}")

    def ask(self, name: str) -> Ask:
        how = self.draw.choice(["whole", "point", "point", "time"])
        death = kill_after_s = None
        if how == "point":
            point = self.draw.choice(list(EFFECTS)), self.draw.choice(WHENS)
            death = Death(*point, self.draw.choice(PHASES), self.draw.randint(1, 3))
        if how == "time":
            kill_after_s = self.draw.uniform(0.1, 1.5)
        self.asked |= {(self.tasks[name]["prompt"], text) for text in self.records(name)}
        load = self.draw.random() < 0.5
        return Ask(name, dict(self.tasks[name]), load, death, kill_after_s)

    def records(self, name: str) -> set[str]:
        """The texts of a pipeline's records now."""
        lines = pipeline.csv_of(self.site, name).read_text("utf-8").splitlines()[1:]
        return {line.split(",")[1] for line in lines}

    def started(self, ask: Ask) -> Running:
        here, there = _FORKS.Pipe(duplex=False)
        process = _FORKS.Process(target=work, args=(self.site.again(), ask, there))
        process.start()
        there.close()
        kill_at = time.monotonic() + ask.kill_after_s if ask.kill_after_s else None
        return Running(ask, process, here, kill_at)

    def until_over(self, running: list[Running], restart_at: float | None) -> None:
        """Move the clock, kill who is due, restart the emulator, until all processes have ended."""
        started = time.monotonic()
        while any(one.process.is_alive() for one in running):
            now = time.monotonic()
            if restart_at is not None and now - started > restart_at:
                restart_at = None
                self.server.kill()
                time.sleep(self.draw.uniform(0.0, 0.3))
                self.server.start()
            for one in running:
                if one.kill_at is not None and now > one.kill_at:
                    one.process.kill()
            self.site.clock(advance_s=10.0)
            if now - started > TURN_S:
                return
            time.sleep(0.1)

    def judge(self, one: Running) -> None:
        told = one.told()
        self.kills += one.process.exitcode == -9
        self.tell(f"{one.ask.pipeline} ended with {one.process.exitcode}: {told}")
        if told and told[0] == "bug":
            self.problems.append(told[1])

    # the end

    def end(self) -> None:
        self.site.faults(*self.lines)
        self.site.pace(end_s=0.0)
        self.finish()
        if self.problems or self.undecided:
            return
        self.invariants()
        before = self.bill()
        self.finish()
        if self.bill() != before:
            self.problems.append(f"another run changed the bill: {before}, then {self.bill()}")

    def finish(self) -> None:
        """Run every pipeline to its end, at the same time: one may wait for what another buys."""
        running: list[Running] = []
        for name in self.names:
            self.asked |= {(self.tasks[name]["prompt"], text) for text in self.records(name)}
            running.append(self.started(Ask(name, dict(self.tasks[name]), load=True)))
        until = time.monotonic() + PATIENCE_S
        for one in running:
            one.process.join(max(0.0, until - time.monotonic()))
            one.process.kill()
            one.process.join()
            told = one.told()
            if told and told[1].startswith("CreateUndecided"):
                self.undecided = True  # of one line, which was missing: a person has to decide
            elif told != ("ok", "done"):
                self.problems.append(f"the undisturbed run of {one.ask.pipeline} came to {told}")

    def bill(self) -> tuple[int, ...]:
        status = self.site.status()
        names = ("requests_received", "requests_billed", "requests_billed_twice")
        return tuple(status[name] for name in names)

    def invariants(self) -> None:
        ledger = self.site.ledger()
        self.problems += disagreements(self.site, ledger)
        for name in self.names:
            self.problems += states(self.site, name, pipeline.days(self.site, name))
            self.problems += self.table(name)
        _, billed, twice = self.bill()
        if twice:
            self.problems.append(f"{twice} requests were billed twice")
        outcomes = [batch.outcomes or {} for batch in ledger.batches()]
        known = sum(n for one in outcomes for kind, n in one.items() if kind in BILLED)
        if billed != known:
            self.problems.append(f"{billed} requests were billed, the ledger knows of {known}")
        self.questions(sum(one.get("Succeeded", 0) for one in outcomes))

    def questions(self, succeeded: int) -> None:
        """Each question was answered once: those of the pipelines as they are now, and no more than
        were ever asked.
        """
        needed = len(self.answered())
        if not needed <= succeeded <= len(self.asked):
            self.problems.append(
                f"{succeeded} answers were bought; {needed} to {len(self.asked)} were asked for"
            )

    def answered(self) -> set[tuple[str, str]]:
        """The questions of now that have an answer."""
        found: set[tuple[str, str]] = set()
        for name in self.names:
            for key in pipeline.days(self.site, name):
                texts = pq.read_table(str(self.site.home.records(name, key))).to_pylist()
                results = self.site.results(key, name)
                found |= {
                    (self.tasks[name]["prompt"], texts[row["record_row"]]["text"])
                    for row in results
                    if row["state"] == "answered"
                }
        return found

    def table(self, name: str) -> Iterator[str]:
        rows = pipeline.table(self.site, name)
        ids = [row["id"] for row in rows]
        loaded = {(row["_partition"], row["id"]) for row in rows if row["_partition"] in "ab"}
        keys = pipeline.days(self.site, name)
        results = {(key, one["record_id"]) for key in keys for one in self.site.results(key, name)}
        if not results <= loaded or len(ids) != len(rows):
            yield f"{name}: {len(loaded)} rows in the table, {len(results)} results"


@dataclass(frozen=True)
class Played:
    """What a seed came to."""

    seed: int
    problems: tuple[str, ...]
    story: tuple[str, ...]
    kills: int
    received: int


def play(seed: int, ledger_url: str | None = None) -> Played:
    """One scenario, in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix=f"batch_etl_soak_{seed}_"))
    draw = random.Random(seed)
    try:
        with server(folder / "emulator") as served:
            lease_s = draw.choice([1.0, 30.0])
            site = Site(folder / "home", served.url, grace_s=2.0, lease_s=lease_s)
            site = site.again(ledger_url=ledger_url)
            world = World(seed, site, served, draw)
            try:
                world.play()
            except (AssertionError, httpx.HTTPError, OSError, BatchEtlError):
                world.problems.append(traceback.format_exc())
            finally:
                site.close()
            received = world.bill()[0] if not world.problems else 0
            problems, story = tuple(world.problems), tuple(world.story)
            return Played(seed, problems, story, world.kills, received)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def told(played: Played) -> str:
    """Why a seed failed, and how to play it again."""
    return "\n  ".join(
        [
            f"seed {played.seed}: {len(played.problems)} problems",
            *played.problems,
            *played.story,
            f"again: python -m batch_etl_tests.faults.soak --seed {played.seed}",
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    logging.disable(logging.CRITICAL)  # the faults are on purpose
    seeds = [options.seed] if options.seed is not None else SHORT
    if options.seeds:
        seeds = range(options.start, options.start + options.seeds)
    failed = kills = received = 0
    with ExitStack() as stack:
        urls = _urls(stack)
        pool = stack.enter_context(ThreadPoolExecutor(options.at_once))
        for played in pool.map(lambda seed: play(seed, urls(seed)), seeds):
            kills += played.kills
            received += played.received
            failed += bool(played.problems)
            if played.problems or options.seed is not None:
                print(told(played), flush=True)
    print(
        f"{len(seeds)} scenarios, {kills} processes killed, {received:,} requests, {failed} failed"
    )
    return 1 if failed else 0


def _urls(stack: ExitStack) -> Callable[[int], str | None]:
    """Where a seed's ledger is: every third in PostgreSQL, where that is installed."""
    found = postgres.programs()
    if found is None:
        return lambda _: None
    running, lock = stack.enter_context(postgres.running(found)), threading.Lock()

    def url(seed: int) -> str | None:
        with lock:
            return running.new_database() if seed % 3 == 0 else None

    return url


def _parser() -> argparse.ArgumentParser:
    known = argparse.ArgumentParser("soak", description=(__doc__ or "").partition("\n")[0])
    known.add_argument("--seed", type=int, help="play this one, and tell how it went")
    known.add_argument("--seeds", type=int, default=0, help="how many (default: the short form)")
    known.add_argument("--start", type=int, default=1, help="the first of them")
    known.add_argument("--at-once", type=int, default=os.cpu_count() or 1, help="in parallel")
    return known


if __name__ == "__main__":
    sys.exit(main())
