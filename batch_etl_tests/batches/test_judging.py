"""Conditions through whole runs: what fails one is asked again and then reviewed, what still holds
is never bought again, whichever condition changes. The emulator's own count of bills judges.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch_etl.batches.errors import RenderError
from batch_etl_tests.batches.engine import Site, until_done

HOLDS: dict[str, Any] = {"conditions": ["output.sentiment in ['positive', 'negative']"]}
LOVE: dict[str, Any] = {
    "conditions": [
        {
            "that": "occurs_in('love', text)",
            "otherwise": "{{ output.sentiment }} is said of a text without love: {{ text }}",
        }
    ],
    "max_attempts": 2,
}
RECORDS = [
    {"id": "a", "text": "I love it"},
    {"id": "b", "text": "I hate it"},
    {"id": "c", "text": "I hate it"},
    {"id": "d", "text": "I love that"},
]


def states(site: Site, pipeline: str | None = None) -> list[tuple[str, int | None]]:
    return [(row["outcome"], row["attempt"]) for row in site.results(pipeline=pipeline)]


def test_an_answer_that_meets_its_conditions_is_as_without_any(site: Site):
    site.run(site.transform(RECORDS, **HOLDS))
    assert states(site) == [("Succeeded", 1)] * 4
    assert site.bill == (3, 3, 0)


def test_an_answer_that_fails_is_repaired_with_the_conditions_sentence_and_then_reviewed(
    site: Site,
):
    summary = site.run(site.transform(RECORDS, **LOVE))
    assert states(site) == [("Succeeded", 1), ("Invalid", 2), ("Invalid", 2), ("Succeeded", 1)]
    assert summary.counts["repaired"] == 1
    row = site.results()[1]
    assert row["state"] == "review"
    assert row["reason"] == "negative is said of a text without love: I hate it"
    assert (row["output"], row["text"]) == (None, '{"sentiment":"negative"}')
    asked = site.received(row["batch_id"])[0]["params"]["messages"]
    assert [turn["role"] for turn in asked] == ["user", "assistant", "user"]
    assert asked[1]["content"] == '{"sentiment":"negative"}'
    assert asked[2]["content"].startswith(
        "Your previous answer is not valid: negative is said of a text without love: I hate it"
    )
    assert site.bill == (4, 4, 0)


def test_nothing_is_bought_again_by_a_later_run_with_the_same_conditions(site: Site):
    for _ in range(3):
        site.run(site.transform(RECORDS, **LOVE))
    assert states(site)[1] == ("Invalid", 2)
    assert site.bill == (4, 4, 0)


def test_a_new_condition_buys_again_only_what_it_fails(site: Site):
    site.run(site.transform(RECORDS))
    assert site.bill == (3, 3, 0)
    summary = site.run(site.transform(RECORDS, **LOVE))
    assert (summary.counts["reused"], summary.counts["resumed"], summary.counts["sent"]) == (
        2,
        2,
        0,
    )
    assert states(site) == [("Succeeded", 1), ("Invalid", 2), ("Invalid", 2), ("Succeeded", 1)]
    assert site.bill == (4, 4, 0)


def test_a_condition_that_is_taken_back_gives_back_what_it_refused(site: Site):
    site.run(site.transform(RECORDS, **LOVE))
    site.run(site.transform(RECORDS))
    assert [outcome for outcome, _ in states(site)] == ["Succeeded"] * 4
    assert site.bill == (4, 4, 0)


def test_conditions_of_one_pipeline_do_not_judge_anothers_answers(site: Site):
    site.run(site.transform(RECORDS, pipeline="strict", **LOVE))
    site.run(site.transform(RECORDS, pipeline="lenient"))
    assert [outcome for outcome, _ in states(site, "lenient")] == ["Succeeded"] * 4
    assert [outcome for outcome, _ in states(site, "strict")].count("Invalid") == 2
    assert site.bill == (4, 4, 0)


def test_without_repairs_an_answer_that_fails_is_reviewed_at_once(site: Site):
    site.run(site.transform(RECORDS, **LOVE, retry={"invalid": "review"}))
    assert states(site)[1] == ("Invalid", 1)
    assert site.bill == (3, 3, 0)


def test_a_condition_that_cannot_be_judged_is_reviewed_with_the_reason_and_costs_no_repair(
    site: Site,
):
    records = [{**record, "n": n} for n, record in enumerate([*RECORDS[:2], RECORDS[3]])]
    own = site.transform(records, prompt="{{ text }} {{ n }}", conditions=["10 / n > 0"])
    site.run(own)
    first, *others = site.results()
    assert (first["outcome"], first["state"], first["attempt"]) == ("Invalid", "review", 1)
    assert first["reason"].startswith("it cannot be judged whether 10 / n > 0: ")
    assert [row["outcome"] for row in others] == ["Succeeded"] * 2
    assert site.bill == (3, 3, 0)


def test_an_answer_that_several_records_share_must_hold_for_each_of_them(site: Site):
    """The prompt shows three letters, so these ask the same; the condition sees it all."""
    records = [{"id": "a", "text": "yes, love"}, {"id": "b", "text": "yes, hate"}]
    own = site.transform(
        records, prompt="{{ text[:3] }}", conditions=["occurs_in('love', text)"], max_attempts=1
    )
    site.run(own)
    assert states(site) == [("Invalid", 1), ("Invalid", 1)]
    assert site.bill == (1, 1, 0)


def test_a_free_text_is_judged_and_repaired_as_text(site: Site):
    own = site.transform(
        [{"id": "a", "text": "I love it"}],
        output_schema=None,
        conditions=[{"that": "output|length > 100000", "otherwise": "too short"}],
        max_attempts=2,
    )
    site.run(own)
    [row] = site.results()
    assert (row["outcome"], row["attempt"], row["reason"]) == ("Invalid", 2, "too short")
    turns = site.received(row["batch_id"])[0]["params"]["messages"]
    assert turns[1]["content"] == row["text"].rstrip() or turns[1]["content"]
    assert turns[2]["content"] == (
        "Your previous answer is not valid: too short\n\nAnswer the question again. "
        "Reply with the answer alone."
    )


def test_an_answer_that_holds_once_it_is_repaired_is_the_answer(site: Site):
    """The first time the model chats around what was asked for."""
    site.faults({"kind": "invalid_lines", "how": "prose", "match": "one", "attempts": 1})
    records = [{"id": "a", "text": "I love one"}, {"id": "b", "text": "I love two"}]
    condition = {"that": "not occurs_in('Let me know', output)", "otherwise": "no chat"}
    own = site.transform(records, output_schema=None, conditions=[condition])
    site.run(own)
    assert states(site) == [("Succeeded", 2), ("Succeeded", 1)]
    assert site.run(own).counts["reused"] == 2
    assert states(site) == [("Succeeded", 2), ("Succeeded", 1)]
    assert site.bill == (3, 3, 0)


def test_an_answer_of_a_forced_tool_is_repaired_too(site: Site):
    site.run(site.transform(RECORDS[:2], **LOVE, answer_from="tool"))
    assert states(site) == [("Succeeded", 1), ("Invalid", 2)]


def test_partitions_and_many_records_are_judged_each_with_its_own_columns(site: Site):
    """Three partitions; of every third record the answer fails, and no other's."""
    days: dict[str, Any] = {
        f"d{day}": [
            {"id": f"r{n}", "text": f"{'I hate' if n % 3 == 0 else 'I love'} {day} {n}"}
            for n in range(40)
        ]
        for day in range(3)
    }
    own = site.transform(days, **{**LOVE, "max_attempts": 1}, packing={"max_requests": 50})
    site.run(own)
    for day in days:
        found = [row["outcome"] for row in site.results(day)]
        assert found == ["Invalid" if n % 3 == 0 else "Succeeded" for n in range(40)]
    assert site.bill == (120, 120, 0)


def test_a_repair_that_was_planned_and_not_sent_is_made_again_with_the_same_words(slow: Site):
    """The create of the repair is refused for a while: it is rendered anew, by another process."""
    own = slow.transform(RECORDS[:2], **LOVE)
    runner = slow.runner()
    identity = runner.open(own)
    runner.advance(identity, own)
    slow.faults({"kind": "error", "route": "create", "status": 529, "times": None})
    slow.clock(advance_s=7200)
    for _ in range(3):
        runner.advance(identity, own)
    assert [batch.status for batch in slow.ledger().batches()] == ["collected", "planned"]
    slow.faults()
    slow.pace(end_s=0)
    slow.clock(advance_s=7200)
    other = slow.again()
    until_done(other.runner(), identity, own)
    other.close()
    row = slow.results()[1]
    turns = slow.received(row["batch_id"])[0]["params"]["messages"]
    assert "negative is said of a text without love" in turns[2]["content"]


def test_the_outlook_says_what_a_changed_condition_would_send(site: Site):
    site.run(site.transform(RECORDS))
    outlook = site.runner().outlook(site.transform(RECORDS, **LOVE))
    assert (outlook.measured.counts.reused, outlook.measured.counts.resumed) == (2, 2)
    assert site.bill == (3, 3, 0)


@pytest.mark.parametrize("name", ["note", "record['note']"])
def test_a_column_that_the_request_is_not_made_from_is_refused_before_anything_is_sent(
    site: Site, name: str
):
    records = [{**record, "note": "x"} for record in RECORDS]
    own = site.transform(records, conditions=[f"output.sentiment == {name}"])
    with pytest.raises(RenderError, match="a condition names 'note', which is no column that the"):
        site.runner().open(own)


def test_conditions_on_the_answer_alone_read_no_records(site: Site, tmp_path: Path):
    own = site.transform(RECORDS, conditions=["output.sentiment == 'positive'"], max_attempts=1)
    site.run(own)
    assert [outcome for outcome, _ in states(site)] == [
        "Succeeded", "Invalid", "Invalid", "Succeeded",
    ]  # fmt: skip


def test_a_condition_that_changes_while_batches_are_open_judges_them_when_they_end(slow: Site):
    own = slow.transform(RECORDS, **HOLDS)
    runner = slow.runner()
    identity = runner.open(own)
    runner.advance(identity, own)
    changed: Any = replace(own, task=slow.transform(None, **{**LOVE, "max_attempts": 1}).task)
    assert runner.open(changed) == identity
    slow.pace(end_s=0)
    slow.clock(advance_s=7200)
    until_done(runner, identity, changed)
    assert [outcome for outcome, _ in states(slow)] == [
        "Succeeded", "Invalid", "Invalid", "Succeeded",
    ]  # fmt: skip
