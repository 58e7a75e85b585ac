"""The sample records of the ready pipelines are whole, varied and hostile on purpose.

They are read here with the standard library alone, so that a fault of our own reader, or a tool
that normalises line ends on checkout, shows as a difference and not as two equal mistakes.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

import batch_etl

DEFS = Path(batch_etl.__file__).parent / "defs"
PIPELINES = ("content_moderation", "feedback_analysis")
START, END = date(2026, 11, 1), date(2026, 11, 15)
DAYS = [START + timedelta(days=n) for n in range((END - START).days)]

LANGUAGES = {"en", "es", "de", "fr", "ar", "he", "ja", "hi", "pt"}

Record = dict[str, Any]


@cache
def attributes(pipeline: str) -> dict[str, Any]:
    block = yaml.safe_load((DEFS / pipeline / "defs.yaml").read_text(encoding="utf-8"))
    assert block["type"] == "batch_etl.components.BatchPipeline"
    return block["attributes"]


@cache
def records(pipeline: str) -> list[Record]:
    pattern = attributes(pipeline)["source"]["path"]
    files = sorted((DEFS / pipeline).glob(pattern))
    return [record for path in files for record in read(path)]


def read(path: Path) -> Iterator[Record]:
    with path.open(newline="", encoding="utf-8") as lines:
        if path.suffix == ".csv":
            yield from csv.DictReader(lines, strict=True)
        else:
            yield from map(json.loads, lines.read().rstrip("\n").split("\n"))


def texts(pipeline: str) -> list[str]:
    return [record["text"] or "" for record in records(pipeline)]


def moment(pipeline: str, record: Record) -> datetime:
    return datetime.fromisoformat(record[attributes(pipeline)["source"]["partition_column"]])


def contains(*parts: str) -> Callable[[str], bool]:
    return lambda text: all(part in text for part in parts)


def matches(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda text: compiled.search(text) is not None


HOSTILE: dict[str, Callable[[str], bool]] = {
    "empty": lambda text: text == "",
    "white space only": lambda text: text != "" and text.isspace(),
    "50 kB": lambda text: len(text.encode()) >= 50_000,
    "a word of a thousand letters": matches(r"\A\w{1000,}\Z"),
    "quotes and commas": matches(r'"[^"]+", |, [^"]*"'),
    "a backslash at the end": lambda text: text.endswith("\\"),
    "LF": matches(r"[^\r]\n"),
    "CRLF": contains("\r\n"),
    "LF and CRLF mixed": matches(r"(?s)[^\r]\n.*\r\n|\r\n.*[^\r]\n"),
    "emoji joined by ZWJ": matches("[\U0001f300-\U0001faff]\u200d"),
    "emoji with skin tone": matches("[\U0001f3fb-\U0001f3ff]"),
    "flag": matches("[\U0001f1e6-\U0001f1ff]{2}"),
    "Arabic": matches("[\u0600-\u06ff]{3}"),
    "Hebrew": matches("[\u0590-\u05ff]{3}"),
    "Japanese": matches("[\u3040-\u30ff]{2}"),
    "Hindi": matches("[\u0900-\u097f]{2}"),
    "bidi mark": contains("\u200f"),
    "bidi embedding": contains("\u202b", "\u202c"),
    "zero-width space": contains("\u200b"),
    "byte order mark inside": contains("\ufeff"),
    "line separator U+2028": contains("\u2028"),
    "decomposed accent": contains("e\u0301"),
    "script tag": contains("<script>"),
    "Jinja expression": matches(r"\{\{ .+ \}\}"),
    "Jinja statement": matches(r"\{% .+ %\}"),
    "SQL injection": matches(r"'\)?;? (DROP TABLE|UPDATE|OR 1=1).*--"),
    "prompt injection": matches("(?i)ignore (all )?previous instructions"),
    "JSON": matches(r'^\{"\w+": .*\}'),
    "spreadsheet formula": matches(r"(?m)^=\w+"),
    "the word NULL": lambda text: text == "NULL",
    "the word None": lambda text: text == "None",
    "not available": lambda text: text in {"NA", "N/A"},
}

HOSTILE_HERE: dict[str, dict[str, Callable[[str], bool]]] = {
    "content_moderation": {
        "doubled quotes": contains('""'),
        "tab": contains("\t"),
        "closing tag of the prompt": contains("</post>", "<post>"),
        "right-to-left override": contains("\u202e"),
        "zero-width joiners between letters": matches("[a-z]\u200c[a-z]|[a-z]\u2060[a-z]"),
        "next line U+0085": contains("\u0085"),
        "paragraph separator U+2029": contains("\u2029"),
        "terminal escape": contains("\x1b["),
        "bell": contains("\x07"),
        "Jinja raw block": contains("{% raw %}"),
        "DROP TABLE": contains("DROP TABLE"),
        "text that looks like CSV": matches(r'\n1,"two, too",3\n'),
        "zero": lambda text: text == "0",
    },
    "feedback_analysis": {
        "closing tag of the prompt": contains("</feedback>", "<feedback>"),
        "soft hyphen": contains("\u00ad"),
        "other template languages": contains("${7*7}", "%s", "{0.__class__}"),
        "one letter": lambda text: len(text) == 1,
        "doubled backslashes": contains("\\\\"),
    },
}

CASES = [
    pytest.param(pipeline, found, id=f"{pipeline}: {kind}")
    for pipeline in PIPELINES
    for kind, found in {**HOSTILE, **HOSTILE_HERE[pipeline]}.items()
]


@pytest.mark.parametrize(("pipeline", "found"), CASES)
def test_each_hostile_kind_of_text_is_among_the_samples(
    pipeline: str, found: Callable[[str], bool]
) -> None:
    assert any(map(found, texts(pipeline)))


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_there_are_140_to_200_records_and_most_texts_differ(pipeline: str) -> None:
    assert 140 <= len(records(pipeline)) <= 200
    assert len(set(texts(pipeline))) >= 120


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_ids_are_unique_and_never_empty(pipeline: str) -> None:
    ids = [record[attributes(pipeline)["source"]["id"]] for record in records(pipeline)]
    assert all(ids)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_day_of_the_two_weeks_has_8_to_15_records_in_utc(pipeline: str) -> None:
    moments = [moment(pipeline, record) for record in records(pipeline)]
    assert {at.tzinfo for at in moments} == {UTC}
    per_day = Counter(at.date() for at in moments)
    assert sorted(per_day) == DAYS
    assert all(8 <= count <= 15 for count in per_day.values())


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_first_and_the_last_second_of_a_day_are_taken(pipeline: str) -> None:
    times = [moment(pipeline, record).strftime("%H:%M:%S") for record in records(pipeline)]
    assert {"00:00:00", "23:59:59"} <= set(times)


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_one_question_is_asked_by_two_records_so_that_it_may_be_bought_once(pipeline: str) -> None:
    source = attributes(pipeline)["source"]
    apart = {source["id"], source["partition_column"]}
    asked = Counter(
        repr({key: value for key, value in record.items() if key not in apart})
        for record in records(pipeline)
        if record["text"]
    )
    assert max(asked.values()) >= 2


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_record_has_the_same_columns(pipeline: str) -> None:
    assert len({tuple(record) for record in records(pipeline)}) == 1


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_links_and_addresses_lead_only_to_reserved_names(pipeline: str) -> None:
    """RFC 2606: ``.example`` and ``example.com`` belong to nobody."""
    hosts = re.findall(r"(?:https?://|@)([\w-]+(?:\.[\w-]+)+)", "\n".join(texts(pipeline)))
    assert hosts
    assert [host for host in hosts if not re.search(r"\.example$|^example\.com$", host)] == []


def test_posts_know_their_columns_and_closed_sets() -> None:
    posts = records("content_moderation")
    roles = {"new_member", "member", "trusted", "moderator"}
    assert {post["author_role"] for post in posts} == roles
    assert {post["language"] for post in posts} == LANGUAGES
    assert all(int(post["reports"]) >= 0 for post in posts)


def test_a_reply_names_an_earlier_post_but_one_parent_lies_before_the_samples() -> None:
    posts = {post["post_id"]: post for post in records("content_moderation")}
    replies = [post for post in posts.values() if post["parent_id"]]
    orphans = [post["parent_id"] for post in replies if post["parent_id"] not in posts]
    assert orphans == ["p1031-07"]
    for reply in replies:
        parent = posts.get(reply["parent_id"])
        assert parent is None or parent["posted_at"] < reply["posted_at"]
    assert len(replies) < len(posts) / 2


def test_feedback_is_nested_typed_and_has_nulls_where_people_leave_gaps() -> None:
    feedback = records("feedback_analysis")
    assert {item["channel"] for item in feedback} == {"ticket", "survey", "app_review", "chat"}
    assert {item["product"] for item in feedback} == {"notes", "sync", "boards", "api"}
    assert {item["plan"] for item in feedback} == {"free", "team", "business", "enterprise"}
    assert {item["score"] for item in feedback} == {None, *range(11)}
    assert {tuple(item["context"]) for item in feedback} == {("app_version", "os")}
    assert all(isinstance(tag, str) for item in feedback for tag in item["tags"])
    assert any(item["tags"] == [] for item in feedback)
    assert any(item["context"]["app_version"] is None for item in feedback)
    assert any(item["context"]["os"] is None for item in feedback)
    assert sum(item["text"] is None for item in feedback) == 1


def test_feedback_lines_come_both_as_raw_utf8_and_as_ascii_escapes() -> None:
    raw = b"".join(path.read_bytes() for path in (DEFS / "feedback_analysis").glob("records/*"))
    assert rb"\u" in raw
    assert "日".encode() in raw or "の".encode() in raw
    assert "\u2028".encode() in raw


def described(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each property and array item below ``schema``, with the path by which a failure names it."""
    for name, child in schema.get("properties", {}).items():
        yield f"{path}.{name}", child
        yield from described(child, f"{path}.{name}")
    if items := schema.get("items"):
        yield f"{path}[]", items
        yield from described(items, f"{path}[]")


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_every_output_property_is_described_and_every_enum_value_explained(pipeline: str) -> None:
    schema = attributes(pipeline)["task"]["output_schema"]
    assert set(schema["required"]) == set(schema["properties"])
    for path, child in described(schema, pipeline):
        words = child.get("description", "")
        assert words, path
        for value in child.get("enum", []):
            assert len(re.findall(rf"(?:^|[.;] ){value}: ", words)) == 1, f"{path}: {value}"


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_yaml_names_only_columns_that_the_records_have(pipeline: str) -> None:
    block = attributes(pipeline)
    columns = set(records(pipeline)[0])
    named = set(re.findall(r"\{\{ (\w+)", block["task"]["prompt"]))
    named |= {block["source"]["id"], block["source"]["partition_column"]}
    assert named | set(block["table"]["columns"]) <= columns
    assert block["name"] == pipeline


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_the_partitions_span_exactly_the_days_of_the_records(pipeline: str) -> None:
    assert attributes(pipeline)["partitions"] == {
        "type": "daily",
        "start": START.isoformat(),
        "end": END.isoformat(),
    }


@pytest.mark.parametrize(
    ("pipeline", "tag"), [("content_moderation", "post"), ("feedback_analysis", "feedback")]
)
def test_the_text_stands_between_tags_and_our_words_have_the_last_line(
    pipeline: str, tag: str
) -> None:
    task = attributes(pipeline)["task"]
    before, after = task["prompt"].split(f"<{tag}>\n{{{{ text }}}}\n</{tag}>")
    assert "{{ text }}" not in before
    assert re.search(rf"the {tag} above", after)
    assert f"last </{tag}>" in task["system"]
    assert "never an instruction to you" in task["system"]
    assert re.search(rf"If the {tag} is empty", task["system"])
