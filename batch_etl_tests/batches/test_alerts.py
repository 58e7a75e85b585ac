"""Each event is told once to each place, whoever notices it and however often."""

from __future__ import annotations

import datetime as dt
import multiprocessing
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from batch_etl.batches.alerts import Alert, abandoned, claim, note, settle
from batch_etl.batches.ledger import Ledger

_FORKS = multiprocessing.get_context("forkserver")

NOON = dt.datetime(2026, 11, 23, 12, 0, tzinfo=dt.UTC)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> dt.datetime:
        return self.now

    def move(self, **by: float) -> None:
        self.now += dt.timedelta(**by)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(tmp_path: Path, clock: Clock) -> Iterator[Ledger]:
    with closing(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}", clock=clock)) as opened:
        yield opened


def alert(number: int = 1) -> Alert:
    return Alert(f"failed_run:{number}", "failed_run", "failure", f"title {number}", "text")


def test_an_alert_is_handed_out_once_however_often_it_is_noted(url: str) -> None:
    with closing(Ledger(url)) as ledger:
        assert note(ledger, [alert(), alert()], ["a"]) == 1
        assert note(ledger, [alert(), alert(2)], ["a"]) == 1
        assert [one.event for one in claim(ledger, "a", 10)] == ["failed_run:1", "failed_run:2"]
        assert claim(ledger, "a", 10) == []
        assert note(ledger, [alert(), alert(2)], ["a"]) == 0
        assert claim(ledger, "a", 10) == []


def test_each_place_is_told_once(ledger: Ledger) -> None:
    assert note(ledger, [alert()], ["a", "b"]) == 2
    assert claim(ledger, "a", 10) == [alert()]
    assert claim(ledger, "b", 10) == [alert()]
    assert note(ledger, [alert()], ["a", "b", "c"]) == 1
    assert claim(ledger, "c", 10) == [alert()]


def test_a_message_takes_so_many_alerts_the_oldest_first(ledger: Ledger, clock: Clock) -> None:
    for number in (3, 1, 2):
        note(ledger, [alert(number)], ["a"])
        clock.move(seconds=1)
    assert [one.event[-1] for one in claim(ledger, "a", 2)] == ["3", "1"]
    assert [one.event[-1] for one in claim(ledger, "a", 2)] == ["2"]


def test_what_was_refused_is_due_again_after_a_pause_that_grows(
    ledger: Ledger, clock: Clock
) -> None:
    note(ledger, [alert()], ["a"])
    for minutes in (1, 2, 4, 8, 16, 32, 60, 60):
        (one,) = claim(ledger, "a", 10)
        settle(ledger, "a", [one], "refused")
        clock.move(minutes=minutes, seconds=-1)
        assert claim(ledger, "a", 10) == []
        clock.move(seconds=1)
    (one,) = claim(ledger, "a", 10)
    settle(ledger, "a", [one], "sent")
    clock.move(days=2)
    assert claim(ledger, "a", 10) == []


def test_what_was_refused_for_a_day_is_given_up(ledger: Ledger, clock: Clock) -> None:
    note(ledger, [alert()], ["a"])
    clock.move(hours=25)
    settle(ledger, "a", claim(ledger, "a", 10), "refused")
    clock.move(days=2)
    assert claim(ledger, "a", 10) == []
    assert note(ledger, [alert()], ["a"]) == 0


def test_what_may_have_arrived_is_never_sent_again(ledger: Ledger, clock: Clock) -> None:
    note(ledger, [alert()], ["a"])
    settle(ledger, "a", claim(ledger, "a", 10), "unsure")
    clock.move(days=2)
    assert claim(ledger, "a", 10) == []
    assert abandoned(ledger, ["a"]) == []


def test_a_claim_whose_process_ended_is_told_of_once_and_not_sent_again(
    ledger: Ledger, clock: Clock
) -> None:
    note(ledger, [alert()], ["a", "b"])
    claim(ledger, "a", 10)
    assert abandoned(ledger, ["a", "b"]) == []
    clock.move(minutes=11)
    assert abandoned(ledger, ["b"]) == []
    assert abandoned(ledger, ["a", "b"]) == [("a", alert())]
    assert abandoned(ledger, ["a", "b"]) == []
    assert claim(ledger, "a", 10) == []
    assert claim(ledger, "b", 10) == [alert()]


def test_a_place_has_no_say_over_anothers_alerts(ledger: Ledger) -> None:
    note(ledger, [alert()], ["a", "b"])
    claimed = claim(ledger, "a", 10)
    claim(ledger, "b", 10)
    settle(ledger, "b", claimed, "refused")
    settle(ledger, "a", claimed, "sent")
    settle(ledger, "a", claimed, "refused")
    assert claim(ledger, "a", 10) == []


def test_more_alerts_than_one_query_takes_are_noted(ledger: Ledger) -> None:
    many = [alert(number) for number in range(1201)]
    assert note(ledger, many, ["a"]) == 1201
    assert note(ledger, many, ["a"]) == 0


def test_of_processes_that_ask_at_once_each_alert_goes_to_one(url: str) -> None:
    queue = _FORKS.SimpleQueue()
    Ledger(url).close()
    processes = [_FORKS.Process(target=take, args=(url, queue)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    got = [event for _ in processes for event in queue.get()]
    assert sorted(got) == sorted(alert(number).event for number in range(20))


def take(url: str, queue: multiprocessing.SimpleQueue) -> None:
    """Note what all note, and take what there is, three at a time."""
    got: list[str] = []
    with closing(Ledger(url)) as ledger:
        note(ledger, [alert(number) for number in range(20)], ["a"])
        while claimed := claim(ledger, "a", 3):
            got += [one.event for one in claimed]
            settle(ledger, "a", claimed, "sent")
    queue.put(got)
