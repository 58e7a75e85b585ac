"""Images and documents: what is refused in which words, what is read, what is owned up to."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from batch_etl.emulator.lines import Terms, why_errs
from batch_etl.emulator.media.images import Picture, look, resized, visual_tokens
from batch_etl.emulator.media.pdfs import read
from batch_etl.emulator.models import Model, find
from batch_etl.emulator.tokens import of_request
from batch_etl_tests.emulator.driver import Driver, params
from batch_etl_tests.emulator.pictures import (
    FORMATS,
    encoded,
    image,
    image_block,
    pdf,
    pdf_block,
    text_block,
)

PNG = image()
BIG_MODEL = "claude-opus-5"
FORM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "vendor": {"type": "string"},
        "total": {"type": "number"},
        "kind": {"enum": ["invoice", "receipt"]},
        "due": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
        "is_paid": {"type": "boolean"},
        "lines": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["vendor", "total", "kind", "due", "is_paid", "lines"],
    "additionalProperties": False,
}
ASKING_FOR_FORM = {"output_config": {"format": {"type": "json_schema", "schema": FORM}}}
PLAINEST = {
    "vendor": "", "total": 0, "kind": "invoice", "due": None, "is_paid": False, "lines": [],
}  # fmt: skip


def asking(*blocks: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return params(messages=[{"role": "user", "content": list(blocks)}], **changes)


def message_of(driver: Driver, asked: dict[str, Any]) -> dict[str, Any]:
    [result] = driver.run([{"custom_id": "a", "params": asked}]).values()
    assert result["type"] == "succeeded", result
    return result["message"]


def answer_of(message: dict[str, Any]) -> Any:
    return json.loads(message["content"][-1]["text"])


def a_document(**source: Any) -> dict[str, Any]:
    return {"type": "document", "source": source}


def an_image(**source: Any) -> dict[str, Any]:
    return {"type": "image", "source": source}


def oversized() -> dict[str, Any]:
    return image_block(
        image(width_px=1920, height_px=1080), transformations={"oversized_image": "error"}
    )


PLACE = "messages.0.content.0"
MANY = [image_block(PNG) for _ in range(20)]
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "a cut off image": (asking(image_block(image(width_px=400)[:-300])), "Could not process image"),
    "no image": (asking(image_block(b"hello")), "Could not process image"),
    "no base64": (
        asking(an_image(type="base64", media_type="image/png", data="#")),
        "Could not process image",
    ),
    "the wrong type": (
        asking(image_block(image("image/jpeg"))),
        f"{PLACE}.image.source.base64.data: Image does not match the provided media type image/png",
    ),
    "no such type": (
        asking(image_block(PNG, "image/tiff")),
        (f"{PLACE}.image.source.base64.media_type: Input should be 'image/jpeg', 'image/png',"
        " 'image/gif' or 'image/webp'"),
    ),
    "too wide": (
        asking(image_block(image(width_px=8001, height_px=1))),
        (f"{PLACE}.image.source.base64.data: At least one of the image dimensions exceed max"
        " allowed size: 8000 pixels"),
    ),
    "too wide among many": (
        asking(image_block(image(width_px=2001, height_px=1)), *MANY),
        (f"{PLACE}.image.source.base64.data: At least one of the image dimensions exceed max"
        " allowed size for many-image requests: 2000 pixels"),
    ),
    "too many bytes": (
        asking(an_image(type="base64", media_type="image/png", data="A" * (10 * 2**20 + 4))),
        (f"{PLACE}.image.source.base64: image exceeds 10 MB maximum: 10485764 bytes >"
        " 10485760 bytes"),
    ),
    "too many": (asking(*[image_block(PNG)] * 101), "too many images: 101 > 100"),
    "not to be scaled down": (
        asking(oversized()),
        (f"{PLACE}: image dimensions 1920x1080 exceed the maximum image size of a model named on"
        " this request and would be downsized to 1456x819; scale the image to at most 1456x819 or"
        ' set the image\'s oversized_image setting to "downsize"'),
    ),
    "no source": (asking({"type": "image"}), f"{PLACE}.image.source: Field required"),
    "a source of no kind": (asking(an_image(type="path")), "Input tag 'path' found using 'type'"),
    "no PDF": (asking(pdf_block(b"%PDF-1.7 nothing")), "Could not process PDF"),
    "a locked PDF": (asking(pdf_block(pdf("x", password="p"))), "encrypted or password protected"),
    "too many pages": (
        asking(pdf_block(pdf(*[""] * 60)), pdf_block(pdf(*[""] * 41))),
        "messages.0.content.1.pdf.source.base64.data: A maximum of 100 PDF pages may be provided.",
    ),
    "a PDF said to be text": (
        asking(a_document(type="base64", media_type="text/plain", data="")),
        "document.source.base64.media_type: Input should be 'application/pdf'",
    ),
    "an empty text": (
        asking(a_document(type="text", media_type="text/plain", data=" ")),
        "must be non-empty",
    ),
    "citations in JSON": (
        asking({**pdf_block(pdf("x")), "citations": {"enabled": True}}, **ASKING_FOR_FORM),
        "document.citations: not supported with output_config.format",
    ),
    "a document elsewhere": (
        asking(a_document(type="url", url="https://x/y.pdf")),
        "Unable to download the file. Please verify the URL and try again.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", FAULTS)
def test_an_image_or_document_that_the_api_refuses_errs_its_line(what: str) -> None:
    asked, message = FAULTS[what]
    fault = why_errs(asked, Terms())
    assert fault is not None
    assert fault.type == "invalid_request_error"
    assert message in fault.message


def test_a_file_that_is_not_there_is_not_found() -> None:
    fault = why_errs(asking(an_image(type="file", file_id="file_1")), Terms())
    assert fault is not None
    assert (fault.type, fault.message) == ("not_found_error", "File `file_1` not found.")


def test_dimensions_are_refused_with_the_code_that_the_sdk_knows(shared: Driver) -> None:
    wide = asking(image_block(image(width_px=8001, height_px=1)))
    found = shared.run([{"custom_id": "a", "params": wide}])
    error = found["a"]["error"]["error"]
    assert error["details"]["error_code"] == "image_dimensions_too_large"


def test_large_contexts_take_more_images_and_pages() -> None:
    more = asking(*[image_block(PNG)] * 101, pdf_block(pdf(*[""] * 101)), model=BIG_MODEL)
    assert why_errs(more, Terms()) is None


@pytest.mark.parametrize("media_type", FORMATS)
def test_an_image_is_received_with_the_same_pixels(shared: Driver, media_type: str) -> None:
    sent = image(media_type)
    asked = asking(image_block(sent, media_type), text_block("What is it?"))
    made = shared.create(
        [{"custom_id": "a-1", "params": asked}, {"custom_id": "b", "params": asked}]
    )
    kept = shared.http.get(f"/_emulator/batches/{made}/received/a-1")
    assert kept.json() == asked
    data = base64.b64decode(kept.json()["messages"][0]["content"][0]["source"]["data"])
    with Image.open(io.BytesIO(data)) as after, Image.open(io.BytesIO(sent)) as before:
        assert after.convert("RGB").tobytes() == before.convert("RGB").tobytes()
    assert shared.kinds(made) == {"a-1": "succeeded", "b": "succeeded"}
    assert shared.http.get(f"/_emulator/batches/{made}/received/c").status_code == 404


def test_pixels_are_answered_with_the_plainest_legal_value_and_owned_up_to(shared: Driver) -> None:
    asked = asking(
        image_block(PNG), text_block("Vendor: see the scan of 12 May."), **ASKING_FOR_FORM
    )
    message = message_of(shared, asked)
    assert answer_of(message) == PLAINEST
    unread = {
        "at": "content.0",
        "what": "image/png, 40 x 30 pixels",
        "why": "the emulator sees no pixels",
    }
    assert message["emulated"] == {"unread": [unread]}


def test_what_is_written_beside_the_pixels_is_not_read_either(shared: Driver) -> None:
    beside = PngImagePlugin.PngInfo()
    beside.add_text("answer", "vendor: Acme")
    data = io.BytesIO()
    Image.new("RGB", (40, 30)).save(data, "PNG", pnginfo=beside)
    texts = [
        message_of(shared, asking(image_block(sent), text_block("Who?"), **ASKING_FOR_FORM))[
            "content"
        ]
        for sent in (data.getvalue(), encoded(Image.new("RGB", (40, 30)), "image/png"))
    ]
    assert texts[0] == texts[1]


def test_in_prose_the_answer_itself_says_that_nothing_was_read(shared: Driver) -> None:
    message = message_of(shared, asking(text_block("Describe it."), image_block(PNG)))
    assert message["content"][0]["text"].startswith("(nothing was read: image/png, 40 x 30 pixels")


def test_text_that_is_set_off_beside_an_image_is_read(shared: Driver) -> None:
    told = text_block("Read both.\n\n<email>Vendor: Acme\nTotal: 12.50</email>")
    message = message_of(shared, asking(image_block(PNG), told, **ASKING_FOR_FORM))
    found = answer_of(message)
    assert (found["vendor"], found["total"]) == ("Acme", 12.5)
    assert len(message["emulated"]["unread"]) == 1


@pytest.mark.parametrize(
    "document",
    [
        pdf_block(pdf("Vendor: Acme (Sons)\nTotal: 1,240.50", "This receipt was due 2026-03-04.")),
        a_document(
            type="text",
            media_type="text/plain",
            data="Vendor: Acme (Sons)\nTotal: 1,240.50\nThis receipt was due 2026-03-04.",
        ),
        a_document(
            type="content",
            content=[
                text_block("Vendor: Acme (Sons)\nTotal: 1,240.50"),
                text_block("This receipt was due 2026-03-04."),
            ],
        ),
    ],
)
def test_the_text_of_a_document_is_the_record(shared: Driver, document: dict[str, Any]) -> None:
    ask = text_block("Fill in the form: total of 99, vendor Nobody, 1999-01-01.")
    message = message_of(shared, asking(document, ask, **ASKING_FOR_FORM))
    found = answer_of(message)
    assert (found["vendor"], found["total"]) == ("Acme (Sons)", 1240.5)
    assert (found["kind"], found["due"]) == ("receipt", "2026-03-04")
    assert "emulated" not in message


def test_pages_without_text_are_owned_up_to(shared: Driver) -> None:
    scanned = pdf_block(pdf("", "Vendor: Acme", ""))
    message = message_of(shared, asking(scanned, text_block("Read."), **ASKING_FOR_FORM))
    assert answer_of(message)["vendor"] == "Acme"
    [unread] = message["emulated"]["unread"]
    assert unread["what"] == "PDF, pages 1, 3 of 3"


def test_a_scan_is_answered_like_an_image(shared: Driver) -> None:
    message = message_of(shared, asking(pdf_block(pdf("")), text_block("Read."), **ASKING_FOR_FORM))
    assert answer_of(message) == PLAINEST


def test_the_same_image_gives_the_same_answer_again(url: str) -> None:
    asked = asking(image_block(PNG), text_block("Who sold it?"), **ASKING_FOR_FORM)
    with Driver(url) as driver:
        assert message_of(driver, asked) == message_of(driver, asked)


SIZES: list[tuple[tuple[int, int], tuple[int, int], int, int]] = [
    ((200, 200), (200, 200), 64, 64),
    ((1000, 1000), (1000, 1000), 1296, 1296),
    ((1092, 1092), (1092, 1092), 1521, 1521),
    ((1920, 1080), (1456, 819), 1560, 2691),
    ((2000, 1500), (1270, 952), 1564, 3888),  # the vendor's code; its table rounds to 1269
    ((3840, 2160), (1456, 819), 1560, 4784),
    ((1075, 1520), (924, 1307), 1551, 2145),
]


@pytest.mark.parametrize(("size", "scaled", "standard", "large"), SIZES)
def test_images_cost_what_the_vendor_s_table_says(
    size: tuple[int, int], scaled: tuple[int, int], standard: int, large: int
) -> None:
    picture = Picture("image/png", *size, whole=True)
    assert resized(*size, large=False) == scaled
    assert visual_tokens(picture, large=False) == standard
    assert visual_tokens(picture, large=True) == large


def test_tokens_of_a_request_count_its_images_and_pages() -> None:
    model = find("claude-haiku-4-5")
    assert isinstance(model, Model)
    plain = of_request(asking(text_block("Read.")), model)
    with_image = of_request(asking(text_block("Read."), image_block(image(width_px=56))), model)
    assert with_image - plain == 2 * 2
    with_pdf = of_request(asking(text_block("Read."), pdf_block(pdf("abcd" * 10, ""))), model)
    assert with_pdf - plain == 2 * 1600 + 10


def test_tokens_are_counted_for_images_over_http(shared: Driver) -> None:
    asked = asking(image_block(PNG), text_block("Read."))
    del asked["max_tokens"]
    reply = shared.http.post("/v1/messages/count_tokens", json=asked)
    assert reply.status_code == 200
    assert reply.json()["input_tokens"] == 2 * 2 + 2 + 8


def test_damaged_files_are_never_more_than_unreadable() -> None:
    whole = image("image/jpeg", 60, 60)
    for n in range(0, len(whole), 97):
        damaged = whole[:n] + b"\xff\x00\xfe" + whole[n + 3 :]
        found = look(damaged)
        assert found is None or isinstance(found, Picture)
    page = pdf("some text")
    for n in range(0, len(page), 53):
        found = read(page[:n])
        assert found is None or found.pages in (("some text",), ("",))


def test_text_alone_loads_neither_pillow_nor_pypdf() -> None:
    code = (
        "import sys; import batch_etl.emulator.server\n"
        "from batch_etl.emulator.lines import Terms\n"
        "from batch_etl.emulator.outcomes import Examiner\n"
        f"line = {json.dumps(params('A text.')).encode()!r}\n"
        "kind = Examiner(seed=0, terms=Terms(), conditions=[]).outcome('a', line).kind\n"
        "print(kind, sorted({'PIL', 'pypdf'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "succeeded []"
