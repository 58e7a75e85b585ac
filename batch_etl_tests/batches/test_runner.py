"""The runner end to end before a real emulator, judged by what the emulator billed.

``site.bill`` is (requests received, billed, billed twice). Each fault that other tools pay
for, lose records over or stop at has a test here.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batch_etl.batches.errors import InvalidRequest, RenderError, ServerFault, TooLarge
from batch_etl.batches.packing import Payload
from batch_etl.batches.runner import Runner
from batch_etl.batches.task import Packing
from batch_etl.errors import SourceError
from batch_etl_tests.batches import engine
from batch_etl_tests.batches.engine import Site, billed_usd, child, rows, until_done

EXPIRED = {"kind": "expire_lines", "fraction": 0.05, "attempts": 1}
ERRORED = {"kind": "error_lines", "fraction": 0.05, "attempts": 1, "seed": 1}
MISSING = {"kind": "missing_lines", "fraction": 0.02, "attempts": 1, "seed": 2}


def answered(site: Site, count: int, key: str | None = None) -> list[dict[str, Any]]:
    """The results, after a look that there are ``count``, all answered, each record once."""
    results = site.results(key)
    assert [row["record_row"] for row in results] == list(range(count))
    assert Counter(row["outcome"] for row in results) == {"Succeeded": count}
    assert {row["state"] for row in results} == {"answered"}
    return results


# what is sent


def test_a_clean_run_sends_each_record_once_and_its_costs_are_the_bill(site):
    summary = site.run(site.transform(rows(200)))
    assert site.bill == (200, 200, 0)
    results = answered(site, 200)
    assert {row["record_id"] for row in results} == {f"r{i}" for i in range(200)}
    assert all(json.loads(row["output"])["sentiment"] == "positive" for row in results)
    assert len({row["custom_id"] for row in results}) == 200
    assert {row["attempt"] for row in results} == {1}
    cost = sum((row["cost_usd"] for row in results), Decimal(0))
    assert cost == billed_usd(site) > 0
    assert summary.cost_pico_usd == int(cost.scaleb(12))
    assert summary.standard_pico_usd == 2 * summary.cost_pico_usd
    assert summary.counts == {
        "records": 200,
        "new": 200,
        "changed": 0,
        "sent": 200,
        "reused": 0,
        "resumed": 0,
        "shared": 0,
        "unsendable": 0,
        "Succeeded": 200,
    }


def test_a_server_that_asks_for_ten_days_is_asked_again_in_minutes(site):
    site.pace(end_s=3600.0, retry_after_s=864_000.0)
    runner, transform = site.runner(), site.transform(rows(5))
    progress = runner.advance(runner.open(transform), transform)
    assert progress.batches_open == 1
    assert 60 < progress.wait_s <= 120


def test_a_second_run_sends_nothing_and_says_the_same(site):
    transform = site.transform(rows(50))
    site.run(transform)
    first = site.results()
    summary = site.run(transform)
    assert site.bill == (50, 50, 0)
    assert site.results() == first
    assert summary.counts["reused"] == 50
    assert summary.cost_pico_usd == 0


def test_one_record_added_sends_one(site):
    site.run(site.transform(rows(50)))
    summary = site.run(site.transform(rows(51)))
    assert site.bill == (51, 51, 0)
    assert (summary.counts["sent"], summary.counts["reused"]) == (1, 50)
    answered(site, 51)


def test_records_in_another_order_send_nothing(site):
    records = rows(50)
    site.run(site.transform(records))
    site.run(site.transform(records[::-1]))
    assert site.bill == (50, 50, 0)
    assert [row["record_id"] for row in answered(site, 50)] == [r["id"] for r in records[::-1]]


def test_another_batch_size_sends_nothing(site):
    records = rows(50)
    site.run(site.transform(records))
    site.run(site.transform(records, packing={"max_requests": 7}))
    assert site.bill == (50, 50, 0)


def test_a_column_that_the_prompt_does_not_use_sends_nothing(site):
    site.run(site.transform(rows(20)))
    site.run(site.transform([{**row, "note": "new"} for row in rows(20)]))
    assert site.bill == (20, 20, 0)


def test_records_with_equal_texts_are_sent_once_and_all_answered(site):
    summary = site.run(site.transform(rows(500, texts=25)))
    assert site.bill == (25, 25, 0)
    results = answered(site, 500)
    assert (summary.counts["sent"], summary.counts["shared"]) == (25, 475)
    assert sum(row["cost_usd"] > 0 for row in results) == 25
    assert sum(row["cost_usd"] for row in results) == billed_usd(site)


def test_a_changed_task_asks_all_anew_and_gives_new_answers_only(site):
    site.run(site.transform(rows(20)))
    changed = [
        {"prompt": "Judge:\n{{ text }}"},
        {"claude_model": "claude-sonnet-4-6"},
        {"max_tokens": 99},
        {"system": "Be strict."},
    ]
    for times, changes in enumerate(changed, start=2):
        site.run(site.transform(None, **changes))
        assert site.bill == (20 * times, 20 * times, 0)
        versions = {row["task_version"] for row in answered(site, 20)}
        assert versions == {engine.task(**changes).version}


def test_a_changed_prompt_asks_only_the_records_that_it_changes(site):
    records = rows(30)
    site.run(site.transform(records))
    prompt = "{% if text.endswith('9') %}Now {% endif %}Classify:\n{{ text }}"
    summary = site.run(site.transform(None, prompt=prompt))
    assert (summary.counts["sent"], summary.counts["reused"]) == (3, 27)
    assert site.bill == (33, 33, 0)
    answered(site, 30)


def test_going_back_to_an_earlier_task_is_free(site):
    site.run(site.transform(rows(20)))
    site.run(site.transform(None, max_tokens=99))
    site.run(site.transform(None))
    assert site.bill == (40, 40, 0)


def test_another_endpoint_asks_again(site):
    site.run(site.transform(rows(10)))
    elsewhere = Site(site.root, site.url, endpoint="other")
    elsewhere.run(elsewhere.transform(None))
    elsewhere.close()
    assert site.bill == (20, 20, 10)
    assert {row["endpoint"] for row in site.results()} == {"emulator"}


def test_another_pipeline_reuses_an_answer_and_does_not_show_its_cost_again(site):
    site.run(site.transform(rows(10)))
    site.run(site.transform(rows(10), pipeline="twin"))
    assert site.bill == (10, 10, 0)
    both = [*site.results(), *site.results(pipeline="twin")]
    assert sum(row["cost_usd"] for row in both) == billed_usd(site)


def test_no_records_make_no_batch_and_an_empty_result(site):
    summary = site.run(site.transform([]))
    assert site.bill == (0, 0, 0)
    assert site.results() == []
    assert summary.counts["records"] == 0
    assert summary.cost_pico_usd == 0


# packing and partitions


def test_a_request_over_the_byte_limit_is_its_records_outcome_and_the_others_go_on(site):
    records = rows(20)
    records[7]["text"] = "x" * 9_000
    summary = site.run(site.transform(records, packing={"max_bytes": 8_000}))
    assert site.bill == (19, 19, 0)
    results = site.results()
    assert [row["record_row"] for row in results] == list(range(20))
    (bad,) = [row for row in results if row["outcome"] != "Succeeded"]
    assert (bad["record_id"], bad["outcome"], bad["state"]) == ("r7", "Errored", "review")
    assert "9,3" in bad["reason"]
    assert "8,000" in bad["reason"]
    assert (bad["request_key"], bad["batch_id"], bad["custom_id"]) == (None, None, None)
    assert (summary.counts["sent"], summary.counts["unsendable"]) == (19, 1)


def test_the_byte_limit_splits_before_the_count_limit(site):
    limits = {"max_requests": 50, "max_bytes": 8_000}
    summary = site.run(site.transform(rows(60), packing=limits))
    assert site.bill == (60, 60, 0)
    sizes = [(batch.requests, batch.payload_bytes) for batch in summary.batches]
    assert len(sizes) > 2
    assert all(count < 50 and size <= 8_000 for count, size in sizes)
    assert sum(count for count, _ in sizes) == 60
    answered(site, 60)


def test_the_count_limit_splits_too(site):
    summary = site.run(site.transform(rows(60), packing={"max_requests": 25}))
    assert sorted(batch.requests for batch in summary.batches) == [10, 25, 25]
    answered(site, 60)


def test_several_partitions_share_a_batch_and_are_written_apart(site):
    days = {f"2026-01-0{day}": rows(10 + day, start=100 * day) for day in (1, 2, 3)}
    summary = site.run(site.transform({**days, "empty": []}))
    assert site.status()["creates_accepted"] == 1
    assert site.bill == (36, 36, 0)
    for key, records in days.items():
        results = answered(site, len(records), key)
        assert [row["record_id"] for row in results] == [record["id"] for record in records]
    assert site.results("empty") == []
    assert [(part.key, part.records) for part in summary.partitions] == [
        ("2026-01-01", 11),
        ("2026-01-02", 12),
        ("2026-01-03", 13),
        ("empty", 0),
    ]


def test_a_text_in_several_partitions_is_bought_once_and_paid_in_one(site):
    site.run(site.transform({"a": rows(5), "b": rows(5), "c": rows(6)}))
    assert site.bill == (6, 6, 0)
    shown = {key: sum(row["cost_usd"] for row in site.results(key)) for key in "abc"}
    assert shown["b"] == 0
    assert sum(shown.values()) == billed_usd(site)


def test_a_partition_run_again_alone_leaves_the_others_as_they_are(site):
    site.run(site.transform({"a": rows(5), "b": rows(5, start=10)}))
    before = site.results("a")
    site.run(site.transform({"b": rows(6, start=10)}))
    assert site.bill == (11, 11, 0)
    assert site.results("a") == before
    answered(site, 6, "b")


# lines that fail


def test_missing_errored_and_expired_lines_are_sent_again_in_the_same_run(site):
    site.faults(EXPIRED, ERRORED, MISSING)
    summary = site.run(site.transform(rows(500)))
    received, billed, twice = site.bill
    assert (billed, twice) == (500, 0)
    assert 520 < received < 600
    results = answered(site, 500)
    assert Counter(row["attempt"] for row in results).keys() == {1, 2}
    first = summary.batches[0].outcomes
    assert first is not None
    assert {"Expired", "Errored", "Missing"} < first.keys()
    assert sum(first.values()) == 500


def test_five_duplicate_lines_are_five_hundred_rows_and_counted(site):
    site.faults({"kind": "duplicate_lines", "regex": "-00000[0-4]$"})
    summary = site.run(site.transform(rows(500)))
    answered(site, 500)
    assert site.bill == (500, 500, 0)
    assert summary.batches[0].outcomes == {"Succeeded": 500, "duplicate_lines": 5}


def test_a_record_whose_attempts_are_used_up_goes_to_review_with_the_last_reason(site):
    site.faults({"kind": "error_lines", "match": "item 7[^0-9]", "type": "overloaded_error"})
    summary = site.run(site.transform(rows(20), max_attempts=3))
    assert site.bill == (22, 19, 0)
    bad = site.results()[7]
    assert (bad["state"], bad["outcome"], bad["attempt"]) == ("review", "Errored", 3)
    assert bad["reason"].startswith("overloaded_error: ")
    assert summary.outcomes == {"Succeeded": 19, "Errored": 1}


def test_a_record_in_review_for_what_was_free_is_asked_again_by_the_next_run(site):
    fault = {"kind": "error_lines", "match": "item 7[^0-9]", "type": "invalid_request_error"}
    site.faults(fault)
    site.run(site.transform(rows(20)))
    assert site.bill == (20, 19, 0)
    site.faults()
    site.run(site.transform(None))
    assert site.bill == (21, 20, 0)
    answered(site, 20)


def test_an_answer_that_was_paid_for_is_not_bought_again(site):
    spoilt = {
        3: ("Refused", {"kind": "refuse_lines"}),
        4: ("Truncated", {"kind": "truncate_lines"}),
        5: ("Invalid", {"kind": "invalid_lines", "how": "wrong_shape"}),
        6: ("Invalid", {"kind": "invalid_lines", "how": "empty"}),
    }
    site.faults(*({**fault, "match": f"item {row}[^0-9]"} for row, (_, fault) in spoilt.items()))
    for _ in range(2):
        site.run(site.transform(rows(20), max_attempts=1))
    assert site.bill == (20, 20, 0)
    results = site.results()
    for row, (outcome, _) in spoilt.items():
        assert (results[row]["state"], results[row]["outcome"]) == ("review", outcome)
        assert results[row]["reason"]
        assert results[row]["cost_usd"] > 0
    assert sum(row["cost_usd"] for row in results) == billed_usd(site)


def test_an_answer_in_an_odd_dress_is_an_answer(site):
    site.faults(
        {"kind": "thinking_first", "fraction": 0.5},
        {"kind": "unknown_fields"},
        {"kind": "no_content_type"},
        {"kind": "invalid_lines", "how": "fenced", "match": "item [0-4][^0-9]"},
        {"kind": "invalid_lines", "how": "prose", "match": "item [5-9][^0-9]"},
    )
    site.run(site.transform(rows(20)))
    results = answered(site, 20)
    assert site.bill == (20, 20, 0)
    assert {row["output"] for row in results} == {'{"sentiment":"positive"}'}
    assert [row["text"] is not None for row in results] == [True] * 10 + [False] * 10


# calls that fail


def test_a_result_stream_that_is_cut_is_read_again_in_the_same_run(site):
    site.faults({"kind": "cut", "fraction": 0.5})
    site.run(site.transform(rows(200)))
    answered(site, 200)
    assert site.bill == (200, 200, 0)
    assert site.status()["http_calls"]["results"] == 2


def test_a_result_stream_that_ends_early_as_if_whole_is_read_again(site):
    site.faults({"kind": "cut", "fraction": 0.5, "clean": True})
    site.run(site.transform(rows(200)))
    answered(site, 200)
    assert site.bill == (200, 200, 0)


def test_results_that_are_not_there_yet_are_waited_for(site):
    site.faults({"kind": "error", "route": "results", "status": 404, "times": 3})
    site.run(site.transform(rows(20)))
    answered(site, 20)


def test_a_batch_that_is_not_to_be_found_yet_is_waited_for(site):
    site.faults({"kind": "error", "route": "retrieve", "status": 404, "times": 3})
    site.run(site.transform(rows(20)))
    answered(site, 20)
    assert site.bill == (20, 20, 0)


@pytest.mark.parametrize("status", [429, 529])
def test_a_create_refused_three_times_for_now_is_one_batch(site, status):
    site.faults({"kind": "error", "route": "create", "status": status, "times": 3})
    site.run(site.transform(rows(50)))
    answered(site, 50)
    assert site.bill == (50, 50, 0)
    assert site.status()["creates_accepted"] == 1
    assert site.status()["http_calls"]["create"] == 4


def test_what_is_packed_behind_a_refused_create_is_sent_too(site):
    site.faults({"kind": "error", "route": "create", "status": 429, "times": 3, "skip": 1})
    site.run(site.transform(rows(50), packing={"max_requests": 10}))
    answered(site, 50)
    assert site.bill == (50, 50, 0)
    assert site.status()["creates_accepted"] == 5


def test_a_poll_that_answers_500_four_times_is_asked_again(site):
    site.faults({"kind": "error", "route": "retrieve", "status": 500, "times": 4})
    site.run(site.transform(rows(50)))
    answered(site, 50)
    assert site.bill == (50, 50, 0)


def test_a_poll_that_fails_for_good_raises_and_the_next_run_goes_on(site):
    transform = site.transform(rows(50))
    site.faults({"kind": "error", "route": "retrieve", "status": 500, "times": 5})
    with pytest.raises(ServerFault):
        site.run(transform)
    site.run(transform)
    answered(site, 50)
    assert site.bill == (50, 50, 0)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"kind": "error", "route": "create", "status": 400}, InvalidRequest),
        ({"kind": "edge_413"}, TooLarge),
    ],
)
def test_a_create_refused_for_good_raises_and_can_be_sent_by_a_later_run(site, fault, error):
    transform = site.transform(rows(50), packing={"max_requests": 20})
    site.faults({**fault, "skip": 1})
    with pytest.raises(error):
        site.run(transform)
    site.run(transform)
    answered(site, 50)
    assert site.bill == (50, 50, 0)


def test_batches_too_large_for_the_server_are_packed_again_under_a_lower_limit(site):
    transform = site.transform(rows(50), packing={"max_requests": 40})
    site.faults({"kind": "edge_413", "times": None})
    with pytest.raises(TooLarge):
        site.run(transform)
    site.faults()
    summary = site.run(site.transform(None, packing={"max_requests": 10}))
    answered(site, 50)
    assert site.bill == (50, 50, 0)
    assert {batch.requests for batch in summary.batches} == {10}


# creates whose fate is unknown


AMBIGUOUS = [
    pytest.param({"kind": "drop", "when": "after"}, id="connection dropped after accept"),
    pytest.param({"kind": "error", "route": "create", "when": "after"}, id="HTTP 500 after accept"),
    pytest.param({"kind": "cut", "route": "create"}, id="reply torn after accept"),
    pytest.param({"kind": "error", "route": "create", "status": 504, "when": "after"},
                 id="gateway timeout after accept"),
]  # fmt: skip
REFUSED_UNSEEN = [
    pytest.param({"kind": "drop", "when": "before"}, id="connection dropped before accept"),
    pytest.param({"kind": "error", "route": "create", "status": 500}, id="HTTP 500, not accepted"),
    pytest.param({"kind": "html", "route": "create"}, id="a proxy's page, not accepted"),
]


@pytest.mark.parametrize("fault", AMBIGUOUS)
def test_a_create_whose_reply_was_lost_is_paid_once_without_a_human(site, fault):
    site.faults(fault)
    site.run(site.transform(rows(100)))
    answered(site, 100)
    assert site.bill == (100, 100, 0)
    assert site.status()["creates_accepted"] == 1


@pytest.mark.parametrize("fault", REFUSED_UNSEEN)
def test_a_create_that_never_arrived_is_sent_again_after_the_grace_period(site, fault):
    site.faults(fault)
    site.run(site.transform(rows(100)))
    answered(site, 100)
    assert site.bill == (100, 100, 0)
    assert site.status()["http_calls"]["create"] == 2


def test_a_lost_create_in_the_middle_of_several_is_paid_once(site):
    site.faults({"kind": "drop", "when": "after", "skip": 2})
    site.run(site.transform(rows(50), packing={"max_requests": 10}))
    answered(site, 50)
    assert site.bill == (50, 50, 0)


def test_every_create_lost_is_still_paid_once(site):
    site.faults({"kind": "drop", "when": "after", "times": None})
    site.run(site.transform(rows(40), packing={"max_requests": 10}))
    answered(site, 40)
    assert site.bill == (40, 40, 0)


def test_nothing_is_sent_again_while_the_batch_may_still_show(tmp_path):
    with engine.site(tmp_path, grace_s=3600.0) as site:
        site.faults({"kind": "drop", "when": "before"})
        runner, transform = site.runner(), site.transform(rows(10))
        identity = runner.open(transform)
        for _ in range(5):
            assert not runner.advance(identity, transform).done
        assert site.status()["http_calls"]["create"] == 1
        site.grace_s = 0.0
        site.run(transform)
        assert site.bill == (10, 10, 0)


def test_nothing_is_sent_again_while_the_batch_found_is_not_proven(slow):
    slow.faults({"kind": "drop", "when": "after"})
    runner, transform = slow.runner(), slow.transform(rows(10))
    identity = runner.open(transform)
    for _ in range(5):
        assert runner.advance(identity, transform).batches_open == 1
    assert slow.status()["http_calls"]["create"] == 1
    slow.clock(advance_s=3600)
    until_done(runner, identity, transform)
    answered(slow, 10)
    assert slow.bill == (10, 10, 0)


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "error", "route": "results", "status": 404, "times": 2},
        {"kind": "cut", "fraction": 0.1},
        {"kind": "error", "route": "list", "status": 500, "skip": 1, "times": 3},
    ],
)
def test_trouble_while_looking_for_a_lost_create_does_not_send_it_again(site, fault):
    site.faults({"kind": "drop", "when": "after"}, fault)
    site.run(site.transform(rows(100)))
    answered(site, 100)
    assert site.bill == (100, 100, 0)
    assert site.status()["creates_accepted"] == 1


def foreign(site: Site, count: int, text: str = "theirs") -> str:
    """A batch that somebody else makes in the same workspace."""
    params = json.dumps({
        "model": "claude-haiku-4-5",
        "max_tokens": 5,
        "messages": [{"role": "user", "content": text}],
    }).encode()  # fmt: skip
    payload = Payload.of("f" * 16, [params] * count, Packing())
    return site.client().create_batch(payload).batch.id


def test_a_foreign_batch_of_the_same_size_is_never_adopted(site):
    theirs = foreign(site, 10)
    site.faults({"kind": "drop", "when": "before"})
    summary = site.run(site.transform(rows(10)))
    assert [batch.batch_id for batch in summary.batches] != [theirs]
    answered(site, 10)
    assert site.bill[0] == 20


def test_our_own_batch_is_told_from_foreign_ones_of_the_same_size(site):
    foreign(site, 10)
    site.faults({"kind": "drop", "when": "after"})
    runner, transform = site.runner(), site.transform(rows(10))
    identity = runner.open(transform)
    runner.advance(identity, transform)
    foreign(site, 10, "theirs, later")
    until_done(runner, identity, transform)
    answered(site, 10)
    assert site.status()["creates_accepted"] == 3


def test_the_lease_is_kept_through_a_create_that_takes_longer(tmp_path):
    """Else another process would look for a batch that is still being uploaded, and send it."""
    with engine.site(tmp_path, lease_s=0.3) as site:
        site.faults({"kind": "slow", "route": "create", "delay_s": 1.0})
        transform = site.transform(rows(10))
        first, second = site.runner(), site.runner()
        identity = first.open(transform)
        thread = threading.Thread(target=lambda: first.advance(identity, transform))
        thread.start()
        while not first.has_open_batches(identity):
            time.sleep(0.01)
        while thread.is_alive():
            assert second.advance(identity, transform).held_by_other or not thread.is_alive()
            time.sleep(0.05)
        thread.join()
        until_done(second, identity, transform)
        assert site.bill == (10, 10, 0)


# kills


PACKED: dict[str, Any] = {"packing": {"max_requests": 15}}


def after_a_kill(tmp_path: Path, death: dict[str, Any], faults: list[dict[str, Any]]) -> None:
    with engine.site(tmp_path, lease_s=0.2) as site:
        transform = site.transform(rows(40, texts=30), **PACKED)
        site.faults(*faults)
        with child(site, death, **PACKED) as process:
            process.join(60)
            assert process.exitcode == -9, f"the process outlived {death}"
        site.run(transform)
        answered(site, 40)
        assert site.bill[1:] == (30, 0)
        assert site.status()["creates_accepted"] == 2 + len(faults)


# The changes of state of a run with two batches: 1 transform created; 2 batch planned,
# 3 submitting, 4 submitted; 5, 6, 7 the same again; 8 transform open; 9, 10 batch collected;
# 11 transform done, or 11, 12, 13 the second attempt's batch. Before 4, 7 and 13 a create call
# was answered.


@pytest.mark.parametrize("at", [2, 4, 7, 8, 9, 11])
def test_a_run_killed_before_any_change_of_state_is_paid_once(tmp_path, at):
    after_a_kill(tmp_path, {"at": at, "when": "before"}, [])


def test_a_run_killed_just_before_its_create_is_paid_once(tmp_path):
    after_a_kill(tmp_path, {"at": 3, "when": "after"}, [])


def test_a_run_killed_in_its_second_attempt_is_paid_once(tmp_path):
    fault = {"kind": "expire_lines", "match": "item 7[^0-9]", "attempts": 1}
    after_a_kill(tmp_path, {"at": 13, "when": "before"}, [fault])


def test_a_run_killed_at_random_times_again_and_again_is_paid_once(tmp_path):
    draw = random.Random(20261123)
    with engine.site(tmp_path, lease_s=0.1) as site:
        transform = site.transform(rows(1_500, texts=1_000), packing={"max_requests": 100})
        for _ in range(4):
            with child(site, packing={"max_requests": 100}) as process:
                process.join(draw.uniform(0.15, 0.5))
        site.run(transform)
        answered(site, 1_500)
        assert site.bill == (1_000, 1_000, 0)


def test_two_processes_at_once_pay_once(tmp_path):
    with engine.site(tmp_path) as site:
        transform = site.transform(rows(60), **PACKED)
        with child(site, **PACKED) as first, child(site, **PACKED) as second:
            first.join(60)
            second.join(60)
            assert (first.exitcode, second.exitcode) == (0, 0)
        site.run(transform)
        answered(site, 60)
        assert site.bill == (60, 60, 0)


# superseding


def test_a_task_changed_while_its_batch_is_open_cancels_it_and_pays_nothing_twice(slow):
    slow.faults({"kind": "partial_cancel", "finished": 0.5})
    runner, before = slow.runner(), slow.transform(rows(40))
    old = runner.open(before)
    runner.advance(old, before)
    changed = slow.transform(None, max_tokens=99)
    new = runner.open(changed)
    runner.advance(new, changed)
    assert slow.status()["batches"]["in_progress"] + slow.status()["batches"]["ended"] >= 1
    slow.clock(advance_s=1)
    until = runner.advance(new, changed)
    assert until.status == "open"
    assert runner.advance(old, before).status == "superseded"
    slow.clock(advance_s=3600)
    until_done(runner, new, changed)
    versions = {row["task_version"] for row in answered(slow, 40)}
    assert versions == {changed.task.version}
    received, billed, twice = slow.bill
    assert (received, twice) == (80, 0)
    assert 40 < billed < 80

    bought = billed - 40
    slow.pace(end_s=0.0)
    slow.run(slow.transform(None))  # the old task again: what the cancelled batch bought is kept
    assert slow.bill == (80 + 40 - bought, 80, 0)
    answered(slow, 40)


def test_records_changed_while_their_batch_is_open_wait_for_it_and_reuse_it(slow):
    runner, before = slow.runner(), slow.transform(rows(40))
    old = runner.open(before)
    runner.advance(old, before)
    changed = slow.transform(rows(41))
    new = runner.open(changed)
    assert new != old
    runner.advance(new, changed)
    assert slow.bill[0] == 40
    slow.clock(advance_s=3600)
    slow.pace(end_s=0.0)
    until_done(runner, new, changed)
    assert slow.bill == (41, 41, 0)
    answered(slow, 41)


def test_a_lost_create_of_a_superseded_task_is_found_and_cancelled(slow):
    slow.faults({"kind": "drop", "when": "after"})
    runner, before = slow.runner(), slow.transform(rows(40))
    old = runner.open(before)
    runner.advance(old, before)
    changed = slow.transform(None, max_tokens=99)
    new = runner.open(changed)
    runner.advance(new, changed)
    slow.clock(advance_s=3600)
    slow.pace(end_s=0.0)
    until_done(runner, new, changed)
    assert slow.bill == (80, 80, 0)
    assert {batch.status for batch in slow.ledger().batches()} == {"collected"}


def test_the_same_task_and_records_go_on_in_the_open_transform(slow):
    runner, transform = slow.runner(), slow.transform(rows(10))
    first = runner.open(transform)
    runner.advance(first, transform)
    assert runner.open(transform) == first
    again = slow.transform(rows(10), packing={"max_requests": 3}, max_attempts=1)
    assert runner.open(again) == first
    assert runner.has_open_batches(first)
    slow.clock(advance_s=3600)
    until_done(runner, first, again)
    assert not runner.has_open_batches(first)
    assert runner.open(transform) != first


# progress and errors


def test_progress_names_what_is_waited_for(slow):
    runner, transform = slow.runner(), slow.transform(rows(25), packing={"max_requests": 10})
    identity = runner.open(transform)
    progress = runner.advance(identity, transform)
    assert (progress.batches, progress.batches_open, progress.requests_open) == (3, 3, 25)
    assert len(progress.batch_ids) == 3
    assert progress.wait_s > 0
    slow.clock(advance_s=3600)
    progress = until_done(runner, identity, transform)
    assert (progress.batches_open, progress.requests_open, progress.batch_ids) == (0, 0, ())


def test_a_done_transform_can_be_advanced_and_nothing_happens(site):
    runner, transform = site.runner(), site.transform(rows(5))
    identity = runner.open(transform)
    until_done(runner, identity, transform)
    calls = site.status()["http_calls"]
    assert runner.advance(identity, transform).done
    assert site.status()["http_calls"] == calls


def test_a_field_that_no_record_has_is_found_before_anything_is_written(site):
    transform = site.transform(rows(5), prompt="{{ txet }}")
    runner = site.runner()
    with pytest.raises(RenderError, match="did you mean 'text'"):
        runner.open(transform)
    assert site.ledger().transforms() == []


def test_records_that_are_not_there_are_named_with_what_to_do(site):
    transform = site.transform(None)
    with pytest.raises(SourceError, match="materialize reviews/records first"):
        site.runner().open(transform)


def test_a_prompt_that_no_record_can_fill_is_an_error_and_the_mended_one_runs(site):
    records = [{"id": f"r{i}", "text": "x", "n": 0} for i in range(4)]
    with pytest.raises(RenderError, match="record 'r0'"):
        site.run(site.transform(records, prompt="{{ text }} {{ 6 / n }}"))
    assert site.bill == (0, 0, 0)
    site.run(site.transform(None, prompt="{{ text }} {{ id }}"))
    answered(site, 4)
    assert site.bill == (4, 4, 0)


@pytest.mark.parametrize("count", [40, 10])
def test_records_that_change_under_a_planned_batch_are_noticed(site, count):
    """The caller holds an old transform's id while the file is replaced."""
    runner, transform = site.runner(), site.transform(rows(40))
    identity = runner.open(transform)
    site.faults({"kind": "error", "route": "create", "status": 429})
    runner.advance(identity, transform)
    site.transform(rows(count, start=1_000))
    with pytest.raises(SourceError, match="have changed since batch"):
        runner.advance(identity, transform)
    assert site.bill == (0, 0, 0)


def test_the_results_file_is_replaced_only_when_all_is_there(slow):
    slow.pace(end_s=0.0)
    slow.run(slow.transform(rows(5)))
    slow.pace(end_s=3600.0)
    runner: Runner = slow.runner()
    changed = slow.transform(None, max_tokens=99)
    identity = runner.open(changed)
    runner.advance(identity, changed)
    before = slow.results()
    assert {row["task_version"] for row in before} == {engine.task().version}
    folder = slow.home.results("emulator", "reviews", None).parent
    assert [path.name for path in folder.iterdir()] == ["all.parquet"]


def test_raw_results_are_kept_for_each_collected_batch(site):
    summary = site.run(site.transform(rows(25), packing={"max_requests": 10}))
    folder = site.home.answers("emulator")
    for batch in summary.batches:
        table = pq.read_table(str(folder / f"{batch.id}.parquet"))
        assert table.num_rows == batch.requests
        assert (folder / f"{batch.id}.jsonl.zst").stat().st_size > 0
