"""The outlook tells what a run then does, and changes nothing."""

from __future__ import annotations

from itertools import pairwise

from batch_etl_tests.batches.engine import Site, rows


def test_a_first_outlook_is_what_the_run_does_and_above_its_price(site: Site) -> None:
    transform = site.transform(rows(30, texts=20))
    found = site.runner().outlook(transform)
    assert (found.measured.counts.records, found.measured.requests) == (30, 20)
    assert found.measured.counts.shared == 10
    assert found.compared.counts == {"new": 30, "changed": 0}
    assert (found.last, found.task_changes, found.open, found.budgets) == (None, (), (), ())
    assert site.ledger().transforms() == []
    assert site.status()["creates_accepted"] == 0
    summary = site.run(transform)
    assert summary.counts["sent"] == 20
    assert (summary.cost_pico_usd or 0) < (found.estimate.cost_pico_usd or 0)


def test_a_history_of_answers_brings_the_estimate_near_to_the_bill(site: Site) -> None:
    site.run(site.transform(rows(60)))
    transform = site.transform(rows(60, start=1000))
    found = site.runner().outlook(transform).estimate
    cost = site.run(transform).cost_pico_usd
    assert cost is not None
    assert cost < (found.cost_pico_usd or 0) < 1.5 * cost
    assert (found.bound_pico_usd or 0) > 4 * cost
    assert "mean of 60 answers to this task" in found.output_basis


def test_records_are_new_or_changed_and_the_rest_is_reused(site: Site) -> None:
    before = rows(10)
    site.run(site.transform(before))
    edited = {**before[0], "text": "I hate it"}
    site.transform([edited, *before[1:], *rows(2, start=50)])
    transform = site.transform(None)
    found = site.runner().outlook(transform)
    assert found.compared.counts == {"new": 2, "changed": 1}
    assert (found.measured.requests, found.measured.counts.reused) == (3, 9)
    summary = site.run(transform)
    assert (summary.counts["new"], summary.counts["changed"]) == (2, 1)
    assert site.run(transform).counts["changed"] == 0


def test_a_changed_task_changes_all_records_and_says_what_it_changed(site: Site) -> None:
    site.run(site.transform(rows(10)))
    transform = site.transform(None, max_tokens=200)
    found = site.runner().outlook(transform)
    assert found.compared.counts == {"new": 0, "changed": 10}
    assert found.task_changes == ("max_tokens: 100 -> 200",)
    assert site.run(transform).task_changes == ("max_tokens: 100 -> 200",)


def test_what_an_open_transform_will_become_is_told(site: Site) -> None:
    site.pace(end_s=3600)
    transform = site.transform(rows(10))
    runner = site.runner()
    runner.advance(runner.open(transform), transform)
    same = runner.outlook(transform)
    assert [(one.fate, one.requests) for one in same.open] == [("continued", 10)]
    assert same.measured.requests == 0
    other_task = runner.outlook(site.transform(None, max_tokens=200))
    assert [one.fate for one in other_task.open] == ["cancelled first"]
    other_records = runner.outlook(site.transform(rows(12)))
    assert [one.fate for one in other_records.open] == ["collected first"]
    assert (other_records.measured.requests, other_records.measured.awaited) == (2, 10)
    elsewhere = runner.outlook(site.transform({"p1": rows(12)}, pipeline="other"))
    assert (elsewhere.open, elsewhere.measured.awaited) == ((), 10)


def test_records_that_cannot_be_sent_are_told_with_the_reason(site: Site) -> None:
    records = [*rows(3), {"id": "big", "text": "x" * 2_000}]
    found = site.runner().outlook(site.transform(records, packing={"max_bytes": 1_500}))
    assert found.measured.counts.unsendable == 1
    ((why, times),) = found.measured.problems.items()
    assert (times, "bytes" in why) == (1, True)


def test_a_sample_is_spread_from_the_first_to_the_last_request(site: Site) -> None:
    sample = site.runner().outlook(site.transform(rows(1000))).measured.sample
    numbers = [int(params.rpartition(b"item ")[2].split(b'"')[0]) for params in sample]
    assert len(numbers) <= 20
    assert numbers[0] == 0
    assert numbers[-1] > 900
    assert len({after - before for before, after in pairwise(numbers)}) == 1
