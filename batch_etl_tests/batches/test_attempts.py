"""Later attempts end to end: what the emulator received, what it billed, what the results say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from batch_etl.batches.elsewhere import Elsewhere
from batch_etl.batches.errors import TooLarge
from batch_etl.batches.keys import KeySet
from batch_etl.batches.manifest import manifest_path, read_manifest, render_again
from batch_etl.batches.plan import PlanCounts, plan
from batch_etl.batches.planning import Planning
from batch_etl.batches.retry import Policy
from batch_etl.batches.runner import Summary
from batch_etl_tests.batches import engine
from batch_etl_tests.batches.engine import Site, billed_usd, child, in_process, rows, until_done

INVALID = {"kind": "invalid_lines", "how": "wrong_shape"}
TRUNCATED = {"kind": "truncate_lines"}
REFUSED = {"kind": "refuse_lines"}
FAULTY = '{"unexpected":"{\\"sentiment\\":\\"positive\\"}"}'


def shown_usd(results: Sequence[dict[str, Any]]) -> Decimal:
    return sum((row["cost_usd"] for row in results), Decimal(0))


def attempts(site: Site) -> list[tuple[int, str, int]]:
    """(attempt, model, requests) of the ledger's batches that were sent."""
    batches = site.ledger().batches(statuses=["collected", "submitted"])
    return sorted((batch.attempt, batch.claude_model, batch.requests) for batch in batches)


def asked(site: Site, attempt: int) -> list[dict[str, Any]]:
    """The parameters that the emulator received in batches of this attempt."""
    ids = [batch.batch_id for batch in site.ledger().batches() if batch.attempt == attempt]
    return [line["params"] for name in ids for line in site.received(name or "")]


def outcomes(results: Sequence[dict[str, Any]]) -> Counter[str]:
    return Counter(row["outcome"] for row in results)


def explained(summary: Summary) -> dict[str, int]:
    names = ("resumed", "again", "repaired", "more_tokens", "stronger_model")
    return {name: summary.counts[name] for name in names if summary.counts.get(name)}


# invalid


def test_invalid_answers_are_repaired_in_the_same_run(site):
    site.faults({**INVALID, "fraction": 0.3, "attempts": 1})
    summary = site.run(site.transform(rows(100)))
    results = site.results()
    assert outcomes(results) == {"Succeeded": 100}
    repaired = sum(row["attempt"] == 2 for row in results)
    assert 15 < repaired < 45
    assert site.bill == (100 + repaired, 100 + repaired, 0)
    assert explained(summary) == {"repaired": repaired}
    assert shown_usd(results) == billed_usd(site)
    first = {params["messages"][0]["content"] for params in asked(site, 1)}
    for params in asked(site, 2):
        question, answer, complaint = params["messages"]
        assert question["role"] == complaint["role"] == "user"
        assert question["content"] in first
        assert answer == {"role": "assistant", "content": FAULTY}
        assert "Your previous answer is not valid: " in complaint["content"]
        assert "'unexpected'" in complaint["content"]
        assert "sentiment" in complaint["content"]
        assert {**params, "messages": None} == {**asked(site, 1)[0], "messages": None}


def test_an_answer_that_stays_invalid_goes_to_review_with_the_last_reason(site):
    site.faults({**INVALID, "match": "item 7[^0-9]"})
    summary = site.run(site.transform(rows(20)))
    bad = site.results()[7]
    assert (bad["state"], bad["outcome"], bad["attempt"]) == ("review", "Invalid", 3)
    assert "'unexpected'" in bad["reason"]
    assert bad["text"] == FAULTY
    assert explained(summary) == {"repaired": 2}
    assert site.bill[:2] == (22, 22)
    assert shown_usd(site.results()) == billed_usd(site)
    assert bad["cost_usd"] > 2 * site.results()[6]["cost_usd"]
    assert [len(params["messages"]) for params in asked(site, 3)] == [3]


def test_a_repair_shows_the_latest_faulty_answer_only(site):
    site.faults(
        {"kind": "invalid_lines", "how": "not_json", "attempts": 1},
        {**INVALID, "attempts": 2},
    )
    site.run(site.transform(rows(3)))
    assert outcomes(site.results()) == {"Succeeded": 3}
    for attempt, faulty in ((2, '{"sentiment":"positive",'), (3, FAULTY)):
        for params in asked(site, attempt):
            assert [turn["role"] for turn in params["messages"]] == ["user", "assistant", "user"]
            assert params["messages"][1]["content"] == faulty


def test_an_empty_answer_cannot_be_shown_and_the_question_is_asked_again(site):
    site.faults({"kind": "invalid_lines", "how": "empty", "attempts": 1})
    summary = site.run(site.transform(rows(3)))
    assert outcomes(site.results()) == {"Succeeded": 3}
    assert explained(summary) == {"again": 3}
    assert sorted(map(str, asked(site, 1))) == sorted(map(str, asked(site, 2)))


def test_invalid_again_asks_as_before_and_review_not_at_all(site):
    site.faults({**INVALID, "attempts": 1})
    site.run(site.transform(rows(3), retry={"invalid": "review"}))
    assert outcomes(site.results()) == {"Invalid": 3}
    summary = site.run(site.transform(None, retry={"invalid": "again"}))
    assert outcomes(site.results()) == {"Succeeded": 3}
    assert explained(summary) == {"resumed": 3, "again": 3}
    assert {len(params["messages"]) for params in asked(site, 2)} == {1}


def test_free_text_without_text_is_asked_again(site):
    site.faults({"kind": "invalid_lines", "how": "empty", "attempts": 1})
    site.run(site.transform(rows(3), output_schema=None))
    assert outcomes(site.results()) == {"Succeeded": 3}


def test_a_repair_that_fits_no_batch_goes_to_review_and_the_others_go_on(site):
    site.faults({**INVALID, "attempts": 1})
    records = rows(4)
    records[2]["text"] = "I love it. " + "x" * 4_000
    site.run(site.transform(records, packing={"max_bytes": 4_700}))
    results = site.results()
    assert [row["outcome"] for row in results] == [
        "Succeeded",
        "Succeeded",
        "Invalid",
        "Succeeded",
    ]
    assert (results[2]["state"], results[2]["attempt"]) == ("review", 1)
    assert site.bill[:2] == (7, 7)
    summary = site.run(site.transform(None, packing={"max_bytes": 4_700}))
    assert site.bill[:2] == (7, 7)
    assert site.results()[2]["outcome"] == "Invalid"
    assert summary.counts["resumed"] == 1
    site.run(site.transform(None))
    assert outcomes(site.results()) == {"Succeeded": 4}
    assert site.bill[:2] == (8, 8)


# truncated


def test_a_truncated_answer_is_asked_again_with_double_the_tokens(site):
    site.faults({**TRUNCATED, "fraction": 0.5, "attempts": 1})
    summary = site.run(site.transform(rows(20)))
    assert outcomes(site.results()) == {"Succeeded": 20}
    again = asked(site, 2)
    assert {params["max_tokens"] for params in asked(site, 1)} == {100}
    assert {params["max_tokens"] for params in again} == {200}
    assert {len(params["messages"]) for params in again} == {1}
    assert explained(summary) == {"more_tokens": len(again)}
    assert shown_usd(site.results()) == billed_usd(site)


def test_an_answer_that_is_always_truncated_goes_to_review_at_the_limit(site):
    site.faults({**TRUNCATED, "match": "item 1[^0-9]"})
    site.run(site.transform(rows(3), max_attempts=9, retry={"max_tokens_limit": 350}))
    assert [params["max_tokens"] for n in (2, 3, 4) for params in asked(site, n)] == [200, 350]
    bad = site.results()[1]
    assert (bad["outcome"], bad["attempt"], bad["state"]) == ("Truncated", 3, "review")


# refused, and the ladder


def test_a_refusal_goes_to_review_unless_a_stronger_model_is_wanted(site):
    site.faults({**REFUSED, "match": "claude-haiku-4-5"})
    site.run(site.transform(rows(4)))
    assert outcomes(site.results()) == {"Refused": 4}
    assert site.bill == (4, 4, 0)
    ladder = {"refused": "stronger_model", "stronger_models": ["claude-sonnet-4-6"]}
    summary = site.run(site.transform(None, retry=ladder))
    assert outcomes(site.results()) == {"Succeeded": 4}
    assert explained(summary) == {"resumed": 4, "stronger_model": 4}
    assert attempts(site) == [(1, "claude-haiku-4-5", 4), (2, "claude-sonnet-4-6", 4)]
    assert {params["model"] for params in asked(site, 2)} == {"claude-sonnet-4-6"}
    assert {len(params["messages"]) for params in asked(site, 2)} == {1}
    assert {row["model"] for row in site.results()} == {"emulator:claude-sonnet-4-6"}
    assert shown_usd(site.results()) == billed_usd(site)


def test_each_failed_answer_climbs_the_ladder_and_one_batch_has_one_model(site):
    site.faults(
        {**REFUSED, "match": "item 0[^0-9]", "attempts": 2},
        {**INVALID, "attempts": 1},
        {"kind": "expire_lines", "match": "item 3[^0-9].*Your previous answer", "attempts": 2},
    )
    ladder = {
        "refused": "stronger_model",
        "stronger_models": ["claude-sonnet-4-6", "claude-opus-4-6"],
    }
    summary = site.run(site.transform(rows(4), retry=ladder))
    assert outcomes(site.results()) == {"Succeeded": 4}
    assert attempts(site) == [
        (1, "claude-haiku-4-5", 4),
        (2, "claude-sonnet-4-6", 4),
        (3, "claude-opus-4-6", 1),
        (3, "claude-sonnet-4-6", 1),
    ]
    assert explained(summary)["stronger_model"] == 6
    expired = {json.dumps(p) for n in (2, 3) for p in asked(site, n) if "item 3" in json.dumps(p)}
    assert len(expired) == 1  # the repair that expired is sent again as it was
    assert shown_usd(site.results()) == billed_usd(site)


# payloads


def test_all_retries_of_an_attempt_share_batches_within_the_limits(site):
    site.faults({**INVALID, "attempts": 1}, {"kind": "expire_lines", "attempts": 1})
    site.run(site.transform(rows(60), packing={"max_requests": 10}))
    assert outcomes(site.results()) == {"Succeeded": 60}
    site.faults({**INVALID, "fraction": 0.2, "attempts": 1})
    site.run(site.transform(rows(60, start=100), packing={"max_requests": 10}))
    assert outcomes(site.results()) == {"Succeeded": 60}
    second = [n for attempt, _, n in attempts(site) if attempt == 2]
    assert sum(second) == site.bill[0] - 120
    assert sum(n < 10 for n in second) <= 2  # the last one of each of the two runs
    assert max(second) == 10


def test_retries_too_large_for_the_server_are_packed_again_under_a_lower_limit(site):
    site.faults(
        {**INVALID, "attempts": 1},
        {"kind": "edge_413", "skip": 1, "times": None},
    )
    transform = site.transform(rows(20))
    with pytest.raises(TooLarge):
        site.run(transform)
    assert site.bill == (20, 20, 0)
    site.faults()
    site.run(site.transform(None, packing={"max_requests": 5}))
    assert outcomes(site.results()) == {"Succeeded": 20}
    assert attempts(site)[1:] == [(2, "claude-haiku-4-5", 5)] * 4
    assert site.bill == (40, 40, 0)


def test_repairs_of_several_partitions_are_packed_together_and_shown_apart(site):
    site.faults({**INVALID, "attempts": 1})
    days = {f"2026-01-0{day}": rows(4, start=10 * day) for day in (1, 2, 3)}
    site.run(site.transform(days))
    assert [n for attempt, _, n in attempts(site) if attempt == 2] == [12]
    shown = [site.results(key) for key in days]
    assert [outcomes(results) for results in shown] == [{"Succeeded": 4}] * 3
    assert sum(map(shown_usd, shown)) == billed_usd(site)


def test_equal_texts_are_repaired_once_and_all_answered(site):
    site.faults({**INVALID, "attempts": 1})
    summary = site.run(site.transform(rows(50, texts=5)))
    results = site.results()
    assert outcomes(results) == {"Succeeded": 50}
    assert site.bill == (10, 10, 0)
    assert {row["attempt"] for row in results} == {2}
    assert sum(row["cost_usd"] > 0 for row in results) == 5
    assert shown_usd(results) == billed_usd(site)
    assert explained(summary) == {"repaired": 5}


# rendered again


def _render(place: Site, changes: dict[str, Any], token: str, out: Path) -> None:
    ledger = place.ledger()
    (row,) = ledger.batches(ids=[token])
    manifest = read_manifest(place.home.transform(row.transform_id), token)
    answers = place.home.answers(place.endpoint)
    payload = render_again(place.transform(None, **changes), token, manifest, answers).payload
    out.write_bytes(b"".join(payload.blocks()))
    place.close()


def test_a_repair_is_rendered_again_byte_for_byte_by_another_process(site, tmp_path):
    site.faults(
        {**INVALID, "fraction": 0.5, "attempts": 2},
        {**TRUNCATED, "attempts": 1},
    )
    changes = {"retry": {"stronger_models": ["claude-sonnet-4-6"]}}
    site.run(site.transform(rows(12), **changes))
    later = [batch for batch in site.ledger().batches() if batch.attempt > 1]
    assert len(later) == 2
    for batch in later:
        out = tmp_path / batch.id
        with in_process(_render, site.again(), changes, batch.id, out) as process:
            process.join(60)
            assert process.exitcode == 0
        requests = json.loads(out.read_bytes())["requests"]
        assert len(out.read_bytes()) == batch.payload_bytes
        assert requests == site.received(batch.batch_id or "")


# kills


# 1 transform created; 2, 3, 4 the first batch planned, submitting, submitted; 5 open; 6 collected;
# then the repairs: 7, 8, 9 and 10, 11, 12 two batches; 13, 14 collected; 15 done.
@pytest.mark.parametrize(
    ("at", "when"),
    [(7, "before"), (8, "before"), (9, "before"), (10, "before"), (12, "before"), (13, "after")],
)
def test_a_run_killed_among_its_repairs_pays_what_an_undisturbed_one_pays(tmp_path, at, when):
    changes: dict[str, Any] = {"packing": {"max_bytes": 9_000}}
    with engine.site(tmp_path, lease_s=0.2) as site:
        site.faults({**INVALID, "attempts": 1})
        transform = site.transform(rows(18), **changes)
        with child(site, {"at": at, "when": when}, **changes) as process:
            process.join(60)
            assert process.exitcode == -9
        site.run(transform)
        assert outcomes(site.results()) == {"Succeeded": 18}
        assert site.bill == (36, 36, 0)
        assert shown_usd(site.results()) == billed_usd(site)
        assert {row["attempt"] for row in site.results()} == {2}


# from one transform to the next


def test_a_second_run_with_nothing_changed_sends_nothing(site):
    site.faults(
        {**INVALID, "match": "item 1[^0-9]"},
        {**TRUNCATED, "match": "item 2[^0-9]"},
        {**REFUSED, "match": "item 3[^0-9]"},
    )
    transform = site.transform(rows(10))
    site.run(transform)
    first, bill = site.results(), site.bill
    assert outcomes(first) == {"Succeeded": 7, "Invalid": 1, "Truncated": 1, "Refused": 1}
    summary = site.run(transform)
    assert site.bill == bill
    assert site.results() == first
    assert (summary.counts["reused"], summary.counts["resumed"]) == (10, 0)


def test_more_attempts_go_on_where_the_last_ones_stopped(site):
    site.faults({**INVALID, "match": "item 1[^0-9]", "attempts": 3}, {**REFUSED, "match": "item 2"})
    site.run(site.transform(rows(5), max_attempts=2))
    assert site.results()[1]["attempt"] == 2
    assert site.bill[0] == 6
    summary = site.run(site.transform(None, max_attempts=4))
    assert site.bill[:2] == (8, 8)
    assert explained(summary) == {"resumed": 1, "repaired": 2}
    results = site.results()
    assert (results[1]["outcome"], results[1]["attempt"]) == ("Succeeded", 4)
    assert results[2]["outcome"] == "Refused"
    assert attempts(site)[-1] == (4, "claude-haiku-4-5", 1)
    assert shown_usd(results) == billed_usd(site)


def test_records_in_review_that_are_resumed_are_fanned_out_to_new_equal_ones(site):
    site.faults({**INVALID, "attempts": 1})
    site.run(site.transform(rows(4, texts=2), max_attempts=1))
    assert site.bill == (2, 2, 0)
    site.run(site.transform(rows(9, texts=3)))
    assert site.bill == (6, 6, 0)  # two repairs; the third text from its beginning
    assert outcomes(site.results()) == {"Succeeded": 9}
    assert shown_usd(site.results()) == billed_usd(site)


def test_a_repair_that_was_cut_short_by_a_change_of_records_goes_on(slow):
    slow.faults({**INVALID, "attempts": 1})
    runner, before = slow.runner(), slow.transform(rows(10))
    old = runner.open(before)
    runner.advance(old, before)
    slow.clock(advance_s=7200)
    runner.advance(old, before)
    assert [attempt for attempt, _, _ in attempts(slow)] == [1, 2]
    changed = slow.transform(rows(11))
    new = runner.open(changed)
    assert not runner.advance(new, changed).done
    slow.clock(advance_s=7200)
    slow.pace(end_s=0.0)
    until_done(runner, new, changed)
    assert slow.bill == (22, 22, 0)
    assert outcomes(slow.results()) == {"Succeeded": 11}
    assert shown_usd(slow.results()) == billed_usd(slow)


def test_a_transform_killed_before_its_repair_is_resumed_by_another_over_more_records(tmp_path):
    with engine.site(tmp_path, lease_s=0.2) as site:
        site.faults({**INVALID, "attempts": 1})
        site.transform(rows(6))
        with child(site, {"at": 7, "when": "before"}) as process:
            process.join(60)
            assert process.exitcode == -9
        summary = site.run(site.transform(rows(8)))
        assert outcomes(site.results()) == {"Succeeded": 8}
        assert explained(summary) == {"resumed": 6, "repaired": 8}
        assert site.bill == (16, 16, 0)
        assert shown_usd(site.results()) == billed_usd(site)


def test_another_pipeline_goes_on_with_what_one_has_in_review_and_shows_its_own_costs(site):
    site.faults({**INVALID, "attempts": 1})
    site.run(site.transform(rows(5), max_attempts=1))
    site.run(site.transform(rows(5), pipeline="twin"))
    assert site.bill == (10, 10, 0)
    twin = site.results(pipeline="twin")
    assert outcomes(twin) == {"Succeeded": 5}
    assert shown_usd([*site.results(), *twin]) == billed_usd(site)


def test_what_fails_elsewhere_while_a_transform_is_planned_is_not_bought_a_first_time(site):
    """The snapshot was taken before the other's batch was even planned."""
    site.faults({**INVALID, "attempts": 1})
    runner, transform = site.runner(), site.transform(rows(6))
    exchange = site.exchange()
    lease = exchange.ledger.acquire(runner.open(transform))
    assert lease is not None
    elsewhere = Elsewhere(exchange, lease.transform_id, Policy.of(transform.task))
    site.run(site.transform(rows(4), pipeline="twin", max_attempts=1))
    counts, folder = PlanCounts(), site.home.transform(lease.transform_id)
    (batch,) = plan(transform, folder, elsewhere, KeySet(), counts)
    assert batch.payload.count == 6
    claimed = Planning(exchange).claim(lease, transform, batch, 1, elsewhere)
    assert claimed is not None
    assert claimed.payload.count == 2
    assert elsewhere.late == 4
    exchange.ledger.move_batch(lease, claimed.token, "planned", "dropped")
    exchange.ledger.release(lease)
    assert explained(site.run(transform)) == {"resumed": 4, "repaired": 6}
    assert site.bill == (12, 12, 0)


def test_two_open_transforms_share_a_repair(slow):
    slow.faults({**INVALID, "attempts": 1})
    runner = slow.runner()
    first = slow.transform(rows(6), pipeline="first")
    second = slow.transform(rows(6), pipeline="second")
    one, two = runner.open(first), runner.open(second)
    for _ in range(4):
        for identity, transform in ((one, first), (two, second)):
            runner.advance(identity, transform)
        slow.clock(advance_s=7200)
    slow.pace(end_s=0.0)
    until_done(runner, two, second)
    until_done(runner, one, first)
    assert slow.bill == (12, 12, 0)
    for pipeline in ("first", "second"):
        assert outcomes(slow.results(pipeline=pipeline)) == {"Succeeded": 6}


def test_manifests_and_answers_from_before_are_read_as_plain_attempts(site):
    """Files of the version that had no columns for how a request differs."""
    import pyarrow.parquet as pq

    site.faults({**INVALID, "attempts": 1})
    site.run(site.transform(rows(5), max_attempts=1))
    (batch,) = site.ledger().batches()
    folder = site.home.transform(batch.transform_id)
    answers = site.home.answers("emulator") / f"{batch.id}.parquet"
    for path, new in ((manifest_path(folder, batch.id), 4), (answers, 4)):
        table = pq.read_table(str(path))
        pq.write_table(table.select(table.column_names[:-new]), str(UPath(path)))
    summary = site.run(site.transform(None))
    assert explained(summary) == {"resumed": 5, "repaired": 5}
    assert outcomes(site.results()) == {"Succeeded": 5}
    assert site.bill == (10, 10, 0)


# poison


def test_a_record_that_cannot_be_rendered_goes_to_review_and_the_others_go_on(site):
    records = [{"id": f"r{i}", "text": f"I love {i}", "n": i - 2} for i in range(6)]
    prompt = "Classify:\n{{ text }} {{ 6 // n }}"
    summary = site.run(site.transform(records, prompt=prompt))
    results = site.results()
    assert outcomes(results) == {"Succeeded": 5, "Errored": 1}
    assert (results[2]["state"], results[2]["record_id"]) == ("review", "r2")
    assert results[2]["reason"].startswith("the prompt cannot be rendered: ZeroDivisionError")
    assert results[2]["cost_usd"] == 0
    assert (summary.counts["sent"], summary.counts["unsendable"]) == (5, 1)
    assert site.bill == (5, 5, 0)
