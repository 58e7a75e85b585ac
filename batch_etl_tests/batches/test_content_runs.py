"""Attachments through whole runs: what arrives, how it is packed, and what becomes of files that
are missing or change. The emulator's own record of what it received judges.
"""

from __future__ import annotations

import base64
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from batch_etl.batches.keys import KeySet
from batch_etl.batches.plan import PlanCounts, measure, plan
from batch_etl.batches.transform import Transform
from batch_etl_tests.batches.engine import Site, until_done
from batch_etl_tests.batches.pictures import noise, picture, pixels
from batch_etl_tests.batches.test_plan import Nobody, transform

SCANS: dict[str, Any] = {"attachments": [{"type": "image", "column": "scan"}]}


def drawn(folder: Path, count: int, size: tuple[int, int] = (30, 20)) -> list[dict[str, Any]]:
    """Records that each name an image of their own, which is there."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(picture(number, size))
    return [{"id": f"r{n}", "text": f"I love {n}", "scan": f"{n}.png"} for n in range(count)]


def images_received(site: Site) -> dict[str, bytes]:
    """The image that the emulator received, by the prompt it stood before."""
    found: dict[str, bytes] = {}
    for batch in site.ledger().batches():
        for line in site.received(batch.batch_id or ""):
            image, prompt = line["params"]["messages"][-1]["content"]
            found[prompt["text"]] = base64.b64decode(image["source"]["data"])
    return found


def with_folder(site: Site, folder: Path, records: list[dict[str, Any]], **changes: Any) -> Any:
    from dataclasses import replace

    return replace(site.transform(records, **{**SCANS, **changes}), folder=folder)


def test_images_arrive_with_the_pixels_of_the_files(site: Site, tmp_path: Path):
    records = drawn(tmp_path / "scans", 6)
    site.run(with_folder(site, tmp_path / "scans", records))
    assert [row["outcome"] for row in site.results()] == ["Succeeded"] * 6
    received = images_received(site)
    for number, record in enumerate(records):
        image = received[f"Classify:\n{record['text']}"]
        assert pixels(image) == pixels(picture(number, (30, 20)))


def test_images_are_made_smaller_where_that_is_asked_for(site: Site, tmp_path: Path):
    records = drawn(tmp_path / "scans", 2, (300, 200))
    attachment = {"type": "image", "column": "scan", "reduce_to_px": 60}
    site.run(with_folder(site, tmp_path / "scans", records, attachments=[attachment]))
    for number, image in enumerate(images_received(site).values()):
        size, colours = pixels(image)
        assert size == (60, 40)
        assert colours[:3] == pixels(picture(number, (1, 1)))[1]


def test_a_batch_of_images_is_split_by_bytes_before_it_is_split_by_count(tmp_path: Path):
    records = [{"id": str(n), "text": str(n), "scan": noise(n, 150)} for n in range(40)]
    attachments = [{"type": "image", "column": "scan", "holds": "bytes"}]
    packing = {"max_requests": 30, "max_bytes": 1_000_000}
    own = transform(tmp_path, [records], attachments=attachments, packing=packing)
    batches = list(plan(own, own.partitions[0].records.parent, Nobody(), KeySet(), PlanCounts()))
    counts = [batch.payload.count for batch in batches]
    assert sum(counts) == 40
    assert max(counts) < 30
    sizes = [batch.payload.size_bytes for batch in batches]
    assert all(800_000 < size <= 1_000_000 for size in sizes[:-1])
    assert sizes == [sum(map(len, batch.payload.blocks())) for batch in batches]


def _noisy(folder: Path, count: int) -> Transform:
    folder.mkdir(parents=True)
    image = noise(1, 600)
    for number in range(count):  # what stands after an image's end makes it another file
        (folder / f"{number}.png").write_bytes(image + b"%d" % number)
    records = [{"id": str(n), "text": str(n), "scan": f"{n}.png"} for n in range(count)]
    own = transform(folder, [records], **SCANS, packing={"max_bytes": 10_000_000})
    return Transform(own.pipeline, own.task, own.id_column, own.partitions, folder=folder)


@pytest.mark.parametrize("passed", ["plan", "measure"])
def test_no_more_than_a_payloads_worth_of_images_is_held(tmp_path: Path, passed: str):
    """Fifty images of 1.4 MB as base64, in payloads of 10 MB: 72 MB pass by."""
    own = _noisy(tmp_path / "in", 50)
    tracemalloc.start()
    try:
        if passed == "plan":
            made = plan(own, own.partitions[0].records.parent, Nobody(), KeySet(), PlanCounts())
            assert sum(batch.payload.count for batch in made) == 50
        else:
            assert measure(own, Nobody(), KeySet()).requests == 50
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    limit = {"plan": 40_000_000, "measure": 60_000_000}  # parts of 4 MB; a sample of 32 MB
    assert peak_bytes < limit[passed]


def test_a_record_whose_file_is_missing_is_in_review_and_the_others_are_answered(
    site: Site, tmp_path: Path
):
    records = drawn(tmp_path / "scans", 4)
    (tmp_path / "scans" / "2.png").unlink()
    own = with_folder(site, tmp_path / "scans", records)
    summary = site.run(own)
    assert summary.counts["unsendable"] == 1
    row = site.results()[2]
    assert (row["state"], row["outcome"]) == ("review", "Errored")
    assert row["reason"].startswith("the image '2.png' in 'scan' is not there")
    (tmp_path / "scans" / "2.png").write_bytes(picture(2))
    assert site.run(own).counts["sent"] == 1
    assert [row["state"] for row in site.results()] == ["answered"] * 4
    assert site.bill == (4, 4, 0)


def test_a_run_of_which_no_file_is_there_sends_nothing_and_says_why_of_each(
    site: Site, tmp_path: Path
):
    records = drawn(tmp_path / "scans", 3)
    site.run(with_folder(site, tmp_path / "elsewhere", records))
    assert all("is not there" in row["reason"] for row in site.results())
    assert site.bill == (0, 0, 0)


def test_the_outlook_tells_of_many_missing_files_in_few_lines(site: Site, tmp_path: Path):
    records = drawn(tmp_path / "scans", 40)
    own = with_folder(site, tmp_path / "elsewhere", records)
    problems = site.runner().outlook(own).measured.problems
    assert sum(problems.values()) == 40
    assert len(problems) == 21
    assert problems.most_common(1) == [("other reasons, which the review queue of a run has", 20)]


def test_a_changed_file_is_asked_again_and_the_others_are_not(site: Site, tmp_path: Path):
    records = drawn(tmp_path / "scans", 4)
    own = with_folder(site, tmp_path / "scans", records)
    site.run(own)
    (tmp_path / "scans" / "1.png").write_bytes(picture(99, (30, 20)))
    assert site.run(own).counts["sent"] == 1
    assert site.bill == (5, 5, 0)


def test_a_file_that_changes_while_its_batch_is_open_makes_another_transform(
    slow: Site, tmp_path: Path
):
    """The open batch is collected, what it answered is reused, and the changed file is asked."""
    records = drawn(tmp_path / "scans", 4)
    own = with_folder(slow, tmp_path / "scans", records)
    runner = slow.runner()
    first = runner.open(own)
    runner.advance(first, own)
    (tmp_path / "scans" / "1.png").write_bytes(picture(99, (30, 20)))
    second = runner.open(own)
    assert second != first
    slow.pace(end_s=0)
    slow.clock(advance_s=7200)
    until_done(runner, second, own)
    assert [row["outcome"] for row in slow.results()] == ["Succeeded"] * 4
    assert slow.bill == (5, 5, 0)


def test_a_batch_of_images_that_was_planned_and_not_sent_is_made_again_byte_for_byte(
    tmp_path: Path,
):
    from upath import UPath

    from batch_etl.batches.manifest import render_again

    folder = tmp_path / "in"
    own = _noisy(folder, 12)
    batches = list(plan(own, UPath(folder), Nobody(), KeySet(), PlanCounts()))
    assert len(batches) > 1
    for batch in batches:
        again = render_again(own, batch.token, batch.manifest, UPath(folder))
        assert b"".join(again.payload.blocks()) == b"".join(batch.payload.blocks())


def test_an_answer_that_is_a_tools_input_is_read_checked_and_priced(site: Site):
    own = site.transform([{"id": "a", "text": "I love it"}], answer_from="tool")
    site.run(own)
    [row] = site.results()
    assert (row["outcome"], row["output"]) == ("Succeeded", '{"sentiment":"positive"}')
    assert row["stop_reason"] == "tool_use"
    line = site.received(row["batch_id"])[0]["params"]
    assert line["tool_choice"] == {"type": "tool", "name": "answer"}


def test_examples_and_a_conversation_arrive_in_their_order(site: Site):
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    own = site.transform(
        [{"id": "a", "text": "I love it", "talk": talk}],
        conversation="talk",
        examples=[{"user": "bad", "assistant": {"sentiment": "negative"}}],
    )
    site.run(own)
    [row] = site.results()
    turns = site.received(row["batch_id"])[0]["params"]["messages"]
    assert [turn["content"] for turn in turns] == [
        "bad", '{"sentiment":"negative"}', "Hi", "Hello", "Classify:\nI love it",
    ]  # fmt: skip
    assert pq.read_table(str(own.partitions[0].records)).num_rows == 1
