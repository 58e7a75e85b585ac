"""Images and documents: types, sizes, numbers, and whether they can be decoded.

Limits: the vision and PDF pages (D). Words: ``Could not process image`` and those on downloads are
captured (C); those on media types, sizes and dimensions are quoted in issues (R: claude-code 4778,
11287, 13131, 19631, edsl 2057), those on PDFs likewise (R: warp 8114, anthropic-sdk-python 903);
the words on a file that is not there are the Files page's (D). Nothing is fetched: a URL errs as
if its download had failed, a file id as if the file were gone.
"""

from __future__ import annotations

from typing import Any

from batch_etl.emulator.models import Model
from batch_etl.emulator.rules.turns import MEDIA, all_blocks
from batch_etl.emulator.rules.verdict import LineError

IMAGE_TYPES = ("image/jpeg", "image/png", "image/gif", "image/webp")
MANY_IMAGES = 20
MAX_EDGE_PX, MAX_EDGE_OF_MANY_PX = 8_000, 2_000
MAX_IMAGE_BYTES = 10 * 2**20
"""Of an image's base64."""
BIG_CONTEXT_TOKENS = 1_000_000
NO_DOWNLOAD = "Unable to download the file. Please verify the URL and try again."
TOO_LARGE = "image_dimensions_too_large"
"""The error code that the SDK knows."""
Placed = tuple[str, dict[str, Any]]


def check_media(params: dict[str, Any], model: Model) -> LineError | None:
    found = [(where, block) for where, _, block in all_blocks(params) if block.get("type") in MEDIA]
    if not found:
        return None
    images = [(where, block) for where, block in found if block["type"] == "image"]
    documents = [(where, block) for where, block in found if block["type"] == "document"]
    return (
        _check_numbers(images, model)
        or _first(
            _check_image(where, block, many=len(images) > MANY_IMAGES, model=model)
            for where, block in images
        )
        or _first(_check_document(where, block, params) for where, block in documents)
        or _check_pages(documents, model)
        or _first(_check_elsewhere(block) for _, block in found)
    )


def _first(errors: Any) -> LineError | None:
    return next((error for error in errors if error is not None), None)


def _check_numbers(images: list[Placed], model: Model) -> LineError | None:
    most = 600 if model.context_tokens >= BIG_CONTEXT_TOKENS else 100
    if len(images) > most:  # own words
        return LineError(f"messages: too many images: {len(images)} > {most}, the most per request")
    return None


def _check_source(where: str, block: dict[str, Any], kinds: tuple[str, ...]) -> LineError | None:
    source = block.get("source")
    if not isinstance(source, dict):
        return LineError(f"{where}.{block['type']}.source: Field required")
    kind = source.get("type")
    if kind not in kinds:  # own words
        return LineError(
            f"{where}.{block['type']}.source: Input tag '{kind}' found using 'type' does not match"
            f" any of the expected tags: {', '.join(map(repr, kinds))}"
        )
    needed = {"url": "url", "file": "file_id", "content": "content"}.get(kind, "data")
    value = source.get(needed)
    if not isinstance(value, (str, list) if kind == "content" else str):
        return LineError(f"{where}.{block['type']}.source.{kind}.{needed}: Field required")
    return None


def _check_image(
    where: str, block: dict[str, Any], *, many: bool, model: Model
) -> LineError | None:
    if error := _check_source(where, block, ("base64", "url", "file")):
        return error
    source = block["source"]
    if source["type"] != "base64":
        return None
    place = f"{where}.image.source.base64"
    if source.get("media_type") not in IMAGE_TYPES:
        return LineError(
            f"{place}.media_type: Input should be 'image/jpeg', 'image/png', 'image/gif' or"
            " 'image/webp'"
        )
    if len(source["data"]) > MAX_IMAGE_BYTES:
        return LineError(
            f"{place}: image exceeds 10 MB maximum: {len(source['data'])} bytes >"
            f" {MAX_IMAGE_BYTES} bytes"
        )
    return _check_pixels(place, block, many=many) or _check_downsizing(where, block, model)


def _check_pixels(place: str, block: dict[str, Any], *, many: bool) -> LineError | None:
    from batch_etl.emulator.media.blocks import picture_of

    picture, declared = picture_of(block), block["source"]["media_type"]
    if picture is None:
        return LineError("Could not process image")
    if picture.media_type != declared:
        return LineError(f"{place}.data: Image does not match the provided media type {declared}")
    most_px, of_many = (
        (MAX_EDGE_OF_MANY_PX, " for many-image requests") if many else (MAX_EDGE_PX, "")
    )
    if max(picture.width_px, picture.height_px) > most_px:
        return LineError(
            f"{place}.data: At least one of the image dimensions exceed max allowed size{of_many}:"
            f" {most_px} pixels",
            code=TOO_LARGE,
        )
    return None if picture.whole else LineError("Could not process image")


def _check_downsizing(where: str, block: dict[str, Any], model: Model) -> LineError | None:
    """The words are those of the page on coordinates (D)."""
    from batch_etl.emulator.media.blocks import picture_of
    from batch_etl.emulator.media.images import resized

    picture = picture_of(block)
    if (block.get("transformations") or {}).get("oversized_image") != "error" or picture is None:
        return None
    is_, fits = (
        (picture.width_px, picture.height_px),
        resized(picture.width_px, picture.height_px, large=model.dense_tokens),
    )
    if is_ == fits:
        return None
    size = f"{fits[0]}x{fits[1]}"
    return LineError(
        f"{where}: image dimensions {is_[0]}x{is_[1]} exceed the maximum image size of a model"
        f" named on this request and would be downsized to {size}; scale the image to at most"
        f' {size} or set the image\'s oversized_image setting to "downsize"'
    )


def _check_document(where: str, block: dict[str, Any], params: dict[str, Any]) -> LineError | None:
    if error := _check_source(where, block, ("base64", "text", "content", "url", "file")):
        return error
    wants_citations = (block.get("citations") or {}).get("enabled")
    if wants_citations and (params.get("output_config") or {}).get("format") is not None:
        # own words; the rule is the structured-outputs page's
        return LineError(f"{where}.document.citations: not supported with output_config.format")
    source = block["source"]
    expected = {"base64": "application/pdf", "text": "text/plain"}.get(source["type"])
    place = f"{where}.document.source.{source['type']}"
    if expected is not None and source.get("media_type") != expected:
        return LineError(f"{place}.media_type: Input should be '{expected}'")
    if source["type"] == "text" and not source["data"].strip():  # own words
        return LineError(f"{place}.data: must be non-empty")
    return _check_pdf(place, block) if source["type"] == "base64" else None


def _check_pdf(place: str, block: dict[str, Any]) -> LineError | None:
    from batch_etl.emulator.media.blocks import pdf_of

    pdf = pdf_of(block)
    if pdf is None:
        return LineError("Could not process PDF")
    if pdf.encrypted:  # own words
        return LineError(f"{place}.data: The PDF is encrypted or password protected")
    return None


def _check_pages(documents: list[Placed], model: Model) -> LineError | None:
    """The limit is the whole request's."""
    from batch_etl.emulator.media.blocks import pdf_of

    most = 600 if model.context_tokens >= BIG_CONTEXT_TOKENS else 100
    count = 0
    for where, block in documents:
        pdf = pdf_of(block)
        count += 0 if pdf is None else pdf.count
        if count > most:
            message = f"A maximum of {most} PDF pages may be provided."
            return LineError(f"{where}.pdf.source.base64.data: {message}")
    return None


def _check_elsewhere(block: dict[str, Any]) -> LineError | None:
    source = block["source"]
    if source["type"] == "url":
        return LineError(NO_DOWNLOAD, at_execution=True)
    if source["type"] == "file":
        message = f"File `{source['file_id']}` not found."
        return LineError(message, "not_found_error", at_execution=True)
    return None
