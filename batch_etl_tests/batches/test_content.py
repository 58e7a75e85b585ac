"""Content: what a record has attached is sent as it is, or the record is told why not."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batch_etl.batches.request import KEY_BYTES, Rendered, Renderer, key_hex
from batch_etl.batches.task import Task
from batch_etl_tests.batches.engine import task
from batch_etl_tests.batches.pictures import PDF, noise, picture, pixels

PLAIN: dict[str, Any] = {"output_schema": None, "prompt": "{{ text }}"}
GOLDEN = (
    b'{"model":"claude-haiku-4-5","max_tokens":100,"output_config":{"format":{"type":"json_schema",'
    b'"schema":{"type":"object","required":["sentiment"],"properties":{"sentiment":{"type":"string",'
    b'"enum":["positive","negative"],"description":"positive: love great; negative: hate bad"}},'
    b'"additionalProperties":false}}},"messages":[{"role":"user","content":"Classify:\\nx"}]}'
)


def render(own: Task, folder: Path | None = None, **columns: Any) -> Rendered:
    records = pa.RecordBatch.from_pydict({"id": ["a"], "text": ["x"], **columns})
    where = folder or Path()
    return Renderer(own, "id", records.schema.names, "pipeline 'p'", where).render(records)


def asked(own: Task, folder: Path | None = None, **columns: Any) -> Any:
    """The messages of a single record."""
    rendered = render(own, folder, **columns)
    assert rendered.faults == {}
    return json.loads(rendered.params[0])["messages"]


def fault(own: Task, folder: Path | None = None, **columns: Any) -> str:
    rendered = render(own, folder, **columns)
    assert list(rendered.params) == [b""]
    assert rendered.keys.tolist() == [b""]
    return rendered.faults[0]


def attach(*attachments: dict[str, Any], **changes: Any) -> Task:
    return task(**{**PLAIN, "attachments": list(attachments), **changes})


IMAGE = {"type": "image", "column": "scan"}
DOCUMENT = {"type": "document", "column": "file"}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# what was there before


def test_a_task_with_a_prompt_alone_sends_the_bytes_that_it_always_sent():
    """Whatever else a task may have by now: no answer that was bought is bought again."""
    rendered = render(task())
    assert list(rendered.params) == [GOLDEN]
    assert key_hex(rendered.keys.tolist()[0]) == "b01357d06b91c7b9e8bb96ddf35dc705"


def test_a_task_with_a_prompt_alone_keeps_its_fingerprint():
    assert task().version == "e77801165cee"


# blocks


def test_an_image_stands_before_the_prompt(tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    [turn] = asked(attach(IMAGE), tmp_path, scan=["a.png"])
    source = {"type": "base64", "media_type": "image/png", "data": b64(picture())}
    assert turn == {
        "role": "user",
        "content": [{"type": "image", "source": source}, {"type": "text", "text": "x"}],
    }


@pytest.mark.parametrize(
    ("kind", "media_type"),
    [
        ("PNG", "image/png"),
        ("JPEG", "image/jpeg"),
        ("GIF", "image/gif"),
        ("WEBP", "image/webp"),
    ],
)
def test_what_an_image_is_follows_from_its_bytes(kind, media_type):
    data = picture(kind=kind)
    for holds, value in (("bytes", data), ("base64", b64(data))):
        [turn] = asked(attach({**IMAGE, "holds": holds}), scan=[value])
        source = turn["content"][0]["source"]
        assert source == {"type": "base64", "media_type": media_type, "data": b64(data)}


def test_a_data_url_and_wrapped_base64_are_base64_too():
    for text in ("data:image/png;base64," + b64(picture()), "\n".join(b64(picture()))):
        [turn] = asked(attach({**IMAGE, "holds": "base64"}), scan=[text])
        assert turn["content"][0]["source"]["data"] == b64(picture())


def test_addresses_and_file_ids_are_sent_as_they_are():
    own = attach({**IMAGE, "holds": "url"}, {**DOCUMENT, "holds": "file_id"})
    [turn] = asked(own, scan=["https://example.com/a.png"], file=["file_01"])
    assert turn["content"][:2] == [
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {"type": "document", "source": {"type": "file", "file_id": "file_01"}},
    ]


@pytest.mark.parametrize(
    ("holds", "value", "source"),
    [
        ("bytes", PDF, {"type": "base64", "media_type": "application/pdf", "data": b64(PDF)}),
        ("bytes", "Grüße".encode(), {"type": "text", "media_type": "text/plain", "data": "Grüße"}),
        ("text", "Grüße", {"type": "text", "media_type": "text/plain", "data": "Grüße"}),
        ("url", "https://e.com/a", {"type": "url", "url": "https://e.com/a"}),
    ],
)
def test_a_document_is_a_pdf_or_text(holds, value, source):
    [turn] = asked(attach({**DOCUMENT, "holds": holds}), file=[value])
    assert turn["content"][0] == {"type": "document", "source": source}


def test_documents_have_titles_citations_and_a_cache_control_on_the_last():
    own = attach(
        {**DOCUMENT, "holds": "text", "title_column": "name", "citations": True,
         "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    )  # fmt: skip
    [turn] = asked(own, file=[["one", None, "two"]], name=[["1", "-", None]])
    first, second, _ = turn["content"]
    assert (first["title"], first["citations"]) == ("1", {"enabled": True})
    assert "title" not in second
    assert "cache_control" not in first
    assert second["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert own.cache_ttl == "1h"


def test_a_list_makes_several_blocks_in_the_order_of_the_task_and_of_the_list():
    own = attach({**DOCUMENT, "holds": "text"}, {**IMAGE, "holds": "url"})
    [turn] = asked(own, scan=[["https://a", None, "https://b"]], file=["t"])
    kinds = [block["source"].get("url") or block["type"] for block in turn["content"][:-1]]
    assert kinds == ["document", "https://a", "https://b"]


@pytest.mark.parametrize("value", [None, "", [], [None, ""]])
def test_a_record_without_any_asks_what_a_task_without_attachments_asks(value):
    kind = pa.list_(pa.string()) if isinstance(value, list) else pa.string()
    scan = pa.array([value], kind)
    with_none = render(attach(IMAGE), scan=scan)
    plain = render(task(**PLAIN))
    assert list(with_none.params) == list(plain.params)
    assert with_none.keys.tolist() == plain.keys.tolist()
    assert fault(attach({**IMAGE, "required": True}), scan=scan) == "there is no image in 'scan'"


def test_a_prompt_that_says_nothing_is_left_out_beside_an_image():
    [turn] = asked(attach({**IMAGE, "holds": "url"}), scan=["https://a"], text=[" "])
    assert [block["type"] for block in turn["content"]] == ["image"]


def test_the_key_is_the_hash_of_the_bytes_sent_and_so_of_the_file(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "b.png").write_bytes(picture(1))
    own = attach(IMAGE)
    before = [render(own, tmp_path, scan=[name]) for name in ("a.png", "b.png")]
    assert before[0].keys.tolist() == before[1].keys.tolist()
    params = before[0].params[0]
    digest = hashlib.sha256(params).hexdigest()[: 2 * KEY_BYTES]
    assert key_hex(before[0].keys.tolist()[0]) == digest
    (tmp_path / "a.png").write_bytes(picture(2))
    assert render(own, tmp_path, scan=["a.png"]).keys.tolist() != before[0].keys.tolist()


# what cannot be sent


def huge(width: int, height: int) -> bytes:
    """A PNG's head that claims this size, with a right checksum."""
    import struct
    import zlib

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    data = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    return b"\x89PNG\r\n\x1a\n" + chunk + data


FAULTS = [
    ({**IMAGE, "holds": "bytes"}, b"", None),
    ({**IMAGE, "holds": "bytes"}, b"no image", "the image in 'scan' is no PNG, JPEG, GIF or WebP"),
    ({**IMAGE, "holds": "bytes"}, PDF, "is no PNG, JPEG, GIF or WebP"),
    ({**IMAGE, "holds": "bytes"}, "text", "is no binary column"),
    ({**IMAGE, "holds": "base64"}, "@@@", "is no base64"),
    ({**IMAGE, "holds": "url"}, "ftp://x", "the image 'ftp://x' in 'scan' is no address"),
    (
        {**IMAGE, "holds": "bytes"},
        huge(8001, 10),
        "has 8001 x 10 px, and the API takes 8000 a side",
    ),
    ({**IMAGE, "holds": "bytes"}, huge(60_000, 60_000), "has too many pixels"),
    ({**IMAGE, "holds": "bytes", "reduce_to_px": 100}, huge(12_000, 10_000), "too many to be made"),
    ({**IMAGE, "holds": "bytes", "reduce_to_px": 100}, huge(200, 200), "cannot be read as PNG"),
    ({**IMAGE, "type": "document", "holds": "bytes"}, b"\xff\xfe\0", "is neither PDF nor text"),
    ({**IMAGE, "type": "document", "holds": "bytes"}, b"a\0b", "is neither PDF nor text in UTF-8"),
    ({**IMAGE, "type": "document", "holds": "text"}, " ", "the document in 'scan' is empty"),
    (IMAGE, "missing.png", "the image 'missing.png' in 'scan' is not there"),
    (IMAGE, "../outside.png", "is outside of"),
    (IMAGE, "/etc/hostname", "is outside of"),
    (IMAGE, "link.png", "is outside of"),
    (IMAGE, "folder", "is no file"),
    (IMAGE, "a\0b", "is no path"),
    (IMAGE, "x" * 5000, "cannot be read: File name too long"),
    (IMAGE, "empty.png", "is empty"),
]


@pytest.mark.parametrize(("attachment", "value", "words"), FAULTS)
def test_a_record_whose_file_cannot_be_sent_is_told_why(attachment, value, words, tmp_path):
    folder = tmp_path / "in"
    (folder / "folder").mkdir(parents=True)
    (folder / "empty.png").touch()
    (tmp_path / "outside.png").write_bytes(picture())
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    if words is None:
        assert render(attach(attachment), folder, scan=[value]).faults == {}
    else:
        assert words in fault(attach(attachment), folder, scan=[value])


def test_a_file_that_is_larger_than_a_batch_is_not_read(tmp_path):
    with (tmp_path / "large.pdf").open("wb") as file:
        file.truncate(300_000_000)
    message = fault(attach(DOCUMENT), tmp_path, file=["large.pdf"])
    assert "has 300,000,000 bytes, and at most 256,000,000 can be sent" in message


def test_an_image_of_more_than_ten_megabytes_as_base64_is_refused_or_made_smaller():
    large = noise(1, 1600)
    message = fault(attach({**IMAGE, "holds": "bytes"}), scan=[large])
    assert "bytes as base64, and the API takes 10,000,000" in message
    own = attach({**IMAGE, "holds": "bytes", "reduce_to_px": 200})
    [turn] = asked(own, scan=[large])
    size, _ = pixels(base64.b64decode(turn["content"][0]["source"]["data"]))
    assert size == (200, 200)


def test_attachments_of_one_record_that_no_batch_takes_are_not_all_read():
    own = attach({**DOCUMENT, "holds": "text"}, packing={"max_bytes": 1_000})
    assert "more than 1,000 bytes" in fault(own, file=[["x" * 600] * 1_000])


def test_the_number_of_images_is_held_to_the_models_limit():
    own = attach({**IMAGE, "holds": "url"})
    assert len(asked(own, scan=[["https://a"] * 100])[0]["content"]) == 101
    message = fault(own, scan=[["https://a"] * 101])
    assert message == "there are 101 images, and the model takes 100"
    larger = attach({**IMAGE, "holds": "url"}, claude_model="claude-opus-5")
    assert "takes 600" in fault(larger, scan=[["https://a"] * 601])


def test_of_more_than_twenty_images_none_may_be_over_2000_px():
    one = huge(2001, 5)
    own = attach({**IMAGE, "holds": "bytes"})
    assert render(own, scan=[[one] * 20]).faults == {}
    assert "of more than 20 the API takes none over 2000 px" in fault(own, scan=[[one] * 21])


def test_the_records_that_can_be_sent_do_not_depend_on_those_that_cannot(tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    names = ["a.png", "gone.png", None, "a.png"]
    own = attach(IMAGE, prompt="{{ 6 // n }}")
    rendered = render(own, tmp_path, id=list("wxyz"), text=[""] * 4, n=[1, 1, 1, 0], scan=names)
    assert list(rendered.faults) == [1]
    assert list(rendered.problems) == [3]
    assert [bool(params) for params in rendered.params] == [True, False, True, False]


# in parts


def test_the_parts_of_many_records_are_the_whole_and_none_is_much_over_its_limit():
    own = attach({**IMAGE, "holds": "bytes"}, prompt="{{ 6 // n }}")
    numbers = range(60)
    records = pa.RecordBatch.from_pydict(
        {
            "id": [str(n) for n in numbers],
            "n": [n % 7 for n in numbers],
            "scan": [picture(n) if n % 5 else b"none" for n in numbers],
        }
    )
    renderer = Renderer(own, "id", records.schema.names, "p")
    whole, parts = renderer.render(records), list(renderer.parts(records, 2_000))
    assert len(parts) > 3
    assert [one for part in parts for one in part.params] == list(whole.params)
    assert [one for part in parts for one in part.keys.tolist()] == whole.keys.tolist()
    assert [one for part in parts for one in part.record_ids.to_pylist()] == (
        whole.record_ids.to_pylist()
    )
    starts = [sum(map(len, parts[:at])) for at in range(len(parts))]
    for name in ("problems", "faults"):
        shifted = {
            start + row: why
            for start, part in zip(starts, parts, strict=True)
            for row, why in getattr(part, name).items()
        }
        assert shifted == getattr(whole, name)
    longest, head = max(map(len, whole.params)), len(whole.params[1]) - len(picture(1))
    sizes = [sum(len(params) - head for params in part.params if params) for part in parts]
    assert all(size < 2_000 + longest for size in sizes)


def test_no_records_make_no_parts():
    own = attach({**IMAGE, "holds": "url"})
    kinds = pa.schema([("id", pa.string()), ("text", pa.string()), ("scan", pa.string())])
    records = pa.RecordBatch.from_pylist([], kinds)
    assert list(Renderer(own, "id", kinds.names, "p").parts(records)) == []


# examples and conversations


def test_examples_stand_before_each_question():
    own = task(
        examples=[{"user": "great", "assistant": {"sentiment": "positive"}}],
    )
    assert asked(own) == [
        {"role": "user", "content": "great"},
        {"role": "assistant", "content": '{"sentiment":"positive"}'},
        {"role": "user", "content": "Classify:\nx"},
    ]


TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


@pytest.mark.parametrize("value", [TALK, json.dumps(TALK)])
def test_a_conversation_stands_before_the_prompt(value):
    own = task(**PLAIN, conversation="talk")
    assert asked(own, talk=[value]) == [*TALK, {"role": "user", "content": "x"}]
    assert asked(own, talk=pa.array([None], pa.string())) == [{"role": "user", "content": "x"}]


def test_without_a_prompt_a_conversations_last_turn_is_the_question():
    own = task(
        output_schema=None, prompt=None, conversation="talk",
        attachments=[{**IMAGE, "holds": "url"}],
    )  # fmt: skip
    talk = [*TALK, {"role": "user", "content": [{"type": "text", "text": "And?"}]}]
    *before, last = asked(own, talk=[json.dumps(talk)], scan=["https://a"])
    assert before == TALK
    assert [block["type"] for block in last["content"]] == ["image", "text"]


def test_a_repair_stands_after_the_conversation_and_the_images():
    own = task(**PLAIN, conversation="talk", attachments=[{**IMAGE, "holds": "url"}])
    records = pa.RecordBatch.from_pydict(
        {"id": ["a"], "text": ["x"], "talk": [json.dumps(TALK)], "scan": ["https://a"]}
    )
    renderer = Renderer(own, "id", records.schema.names, "p")
    (params,) = renderer.render(records).params
    assert renderer.asked(params) == params
    turn = b',{"role":"assistant","content":"?"}'
    again = json.loads(renderer.asked(params, "claude-opus-5", 7, turn))
    assert again["messages"] == [
        *json.loads(params)["messages"], {"role": "assistant", "content": "?"}
    ]  # fmt: skip
    assert (again["model"], again["max_tokens"]) == ("claude-opus-5", 7)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("{", "is not JSON"),
        ('"x"', "is no list of turns"),
        ('[{"role":"user"}]', "turn 1 is not {role, content}"),
        ('[{"role":"robot","content":"x"}]', "the role is 'robot'"),
        ('[{"role":"user","content":" "}]', "turn 1 is empty"),
        ('[{"role":"user","content":[]}]', "neither text nor a list of content blocks"),
        ('[{"role":"user","content":[{}]}]', "neither text nor a list of content blocks"),
        ("", "is empty, and there is no prompt"),
        (json.dumps(TALK), "ends with a turn of the assistant's"),
    ],
)
def test_a_conversation_that_is_none_is_its_records_fault(value, words):
    own = task(output_schema=None, prompt=None, conversation="talk")
    message = fault(own, talk=[value])
    assert message.startswith("the conversation in 'talk' ")
    assert words in message


def test_nulls_that_arrow_puts_into_blocks_are_not_sent():
    blocks = [{"type": "text", "text": "x", "title": None}]
    own = task(output_schema=None, prompt=None, conversation="talk")
    [turn] = asked(own, talk=[[{"role": "user", "content": blocks}]])
    assert turn["content"] == [{"type": "text", "text": "x"}]
