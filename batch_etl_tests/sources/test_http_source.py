"""HttpSource against a real server: every way of paging, trouble, and the secret."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from batch_etl.errors import SourceError
from batch_etl.sources import HttpSource, PartitionSlice
from batch_etl.sources.http_pages import (
    MOST_PAGE_BYTES,
    Asking,
    PageFailed,
    Secret,
    check_scheme,
    origin_of,
)
from batch_etl.strict import explain
from batch_etl_tests.scripted_server import ScriptedServer, Step, answer, head
from batch_etl_tests.sources.databases import days, ids, read, schema_of

TOKEN = "tok-3f1c9b"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as server:
        yield server


def source(server: ScriptedServer, path: str = "/tickets", **settings: Any) -> HttpSource:
    values = {"type": "http", "url": f"{server.url}{path}", "id": "id"} | settings
    return HttpSource.model_validate(values)


def rows(*numbers: int) -> list[dict[str, Any]]:
    return [{"id": number, "text": f"ticket {number}"} for number in numbers]


def queries(server: ScriptedServer) -> list[dict[str, str]]:
    return [dict(httpx.QueryParams(one.query)) for one in server.received]


# Pages --------------------------------------------------------------------------------------------


def test_one_page_that_is_a_list(server: ScriptedServer) -> None:
    server.then(answer(200, rows(1, 2)))
    assert read(source(server)) == {None: rows(1, 2)}
    (asked,) = server.received
    assert (asked.method, asked.target) == ("GET", "/tickets")
    assert asked.headers["accept"] == "application/json"


def test_a_cursor_leads_from_page_to_page(server: ScriptedServer) -> None:
    for numbers, cursor in (((1, 2), "a b"), ((3,), 7), ((), None)):
        server.then(answer(200, {"data": {"items": rows(*numbers)}, "meta": {"next": cursor}}))
    asked = source(
        server,
        items="data.items",
        params={"limit": 2, "open": True},
        paging={"by": "cursor", "param": "after", "at": "meta.next"},
    )
    assert ids(read(asked)) == {None: [1, 2, 3]}
    same = {"limit": "2", "open": "true"}
    assert queries(server) == [same, same | {"after": "a b"}, same | {"after": "7"}]


@pytest.mark.parametrize(
    ("paging", "numbers"),
    [
        ({"by": "page", "param": "p"}, ["1", "2", "3"]),
        ({"by": "page", "param": "p", "first": 0}, ["0", "1", "2"]),
        ({"by": "offset", "param": "p"}, ["0", "2", "3"]),
    ],
)
def test_pages_or_records_are_counted_until_a_page_has_none(
    server: ScriptedServer, paging: dict[str, Any], numbers: list[str]
) -> None:
    server.then(answer(200, rows(1, 2)), answer(200, rows(3)), answer(200, []))
    assert ids(read(source(server, paging=paging))) == {None: [1, 2, 3]}
    assert [query["p"] for query in queries(server)] == numbers


def test_the_link_header_leads_on(server: ScriptedServer) -> None:
    link = f'<{server.url}/tickets?page=9>; rel="last", </tickets?page=2>; rel="next"'
    server.then(answer(200, rows(1), {"link": link}), answer(200, rows(2)))
    assert ids(read(source(server, paging={"by": "link"}))) == {None: [1, 2]}
    assert server.received[1].target == "/tickets?page=2"


def test_an_address_in_the_page_leads_on(server: ScriptedServer) -> None:
    server.then(answer(200, {"items": rows(1), "next": "?page=2"}), answer(200, {"items": rows(2)}))
    asked = source(server, items="items", paging={"by": "url", "at": "next"})
    assert ids(read(asked)) == {None: [1, 2]}
    assert server.received[1].target == "/tickets?page=2"


def test_types_come_from_all_pages_and_nested_objects_stay_so(server: ScriptedServer) -> None:
    big = 2**60 + 1
    pages = [
        [{"id": "a", "n": 1, "by": {"name": "Ü"}, "tags": []}],
        [{"id": "b", "n": 2.5, "by": {"name": None, "age": 3}, "tags": ["x"], "big": big}],
        [],
    ]
    for _ in range(2):
        server.then(*(answer(200, json.dumps(page, indent=2).encode()) for page in pages))
    asked = source(server, paging={"by": "page", "param": "p"}, types={"gone": "date"})
    assert read(asked)[None] == [
        {"id": "a", "n": 1.0, "by": {"name": "Ü", "age": None}, "tags": [], "big": None}
        | {"gone": None},
        {"id": "b", "n": 2.5, "by": {"name": None, "age": 3}, "tags": ["x"], "big": big}
        | {"gone": None},
    ]
    assert schema_of(asked)["big"] == "int64"


def test_no_records_have_the_columns_that_are_known(server: ScriptedServer) -> None:
    for _ in range(2):
        server.then(answer(200, []))
    asked = source(server, types={"n": "int64"}, partition_column="at")
    assert read(asked, days(1)) == {"2026-11-01": []}
    server.then(answer(200, []))
    assert schema_of(source(server, types={"n": "int64"})) == {"id": "string", "n": "int64"}


# Partitions ---------------------------------------------------------------------------------------


def test_bounds_are_in_the_address_and_the_parameters(server: ScriptedServer) -> None:
    server.then(answer(200, rows(1)), answer(200, rows(2)))
    asked = source(
        server,
        "/{start:%Y/%m}/tickets",
        params={"from": "{start}", "to": "{end:%Y-%m-%d}", "q": "a&b"},
    )
    assert ids(read(asked, days(1, 2))) == {"2026-11-01": [1], "2026-11-02": [2]}
    assert [one.path for one in server.received] == ["/2026%2F11/tickets"] * 2
    assert queries(server) == [
        {"from": "2026-11-01T00:00:00Z", "to": "2026-11-02", "q": "a&b"},
        {"from": "2026-11-02T00:00:00Z", "to": "2026-11-03", "q": "a&b"},
    ]


def test_a_key_is_quoted(server: ScriptedServer) -> None:
    server.then(answer(200, rows(1)))
    read(
        source(server, "/of/{partition}", params={"k": "{partition}"}),
        [PartitionSlice("a/../b&c=1")],
    )
    assert server.received[0].target == "/of/a%2F..%2Fb%26c%3D1?k=a%2F..%2Fb%26c%3D1"


def test_rows_go_to_the_day_that_they_say(server: ScriptedServer) -> None:
    found = [{"id": n, "at": f"2026-11-0{n}T12:00:00Z"} for n in (1, 2, 3)]
    server.then(answer(200, found))
    asked = source(server, partition_column="at", params={"from": "{start}", "to": "{end}"})
    assert ids(read(asked, days(1, 2))) == {"2026-11-01": [1], "2026-11-02": [2]}
    assert queries(server) == [{"from": "2026-11-01T00:00:00Z", "to": "2026-11-03T00:00:00Z"}]


def test_a_wrong_row_is_named_with_its_page(server: ScriptedServer) -> None:
    first = [{"id": 1, "day": "2026-11-01"}, {"id": 2, "day": None}]
    server.then(*(answer(200, page) for page in (first, [{"id": 3, "day": "7"}], [])))
    asked = source(server, paging={"by": "page", "param": "p"}, types={"day": "date"})
    with pytest.raises(
        SourceError, match="/tickets page 2 record 1: 'day' is '7', which is no date"
    ):
        read(asked)


# What is wrong ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "settings", "words"),
    [
        (answer(200, b"<html>"), {}, "the page is no list of records"),
        (answer(200, {"data": []}), {}, "`items` is the way to the list, as `data.items`"),
        (
            answer(200, {"dta": []}),
            {"items": "data"},
            "there is no 'data' in the page; there is dta",
        ),
        (answer(200, [1]), {"items": "data"}, "there is no object: '[1]'"),
        (answer(200, [{"id": 1}, 7]), {}, "record 2 of page 1 is no object: 7"),
        (answer(200, [{"n": 1}]), {}, "id: there is no column 'id'"),
        (
            answer(404, {"error": "no such thing"}),
            {},
            'answered 404: {"error": "no such thing"}; check `url`',
        ),
        (answer(400, b""), {}, "the server answered 400"),
        (
            answer(302, b"", {"location": "http://example.org/x"}),
            {},
            "http is for this machine only",
        ),
    ],
)
def test_an_answer_that_cannot_be_used_says_why(
    server: ScriptedServer, step: Step, settings: dict[str, Any], words: str
) -> None:
    server.then(step)
    with pytest.raises(SourceError) as caught:
        read(source(server, **settings))
    assert words in str(caught.value)
    assert len(server.received) == 1


def test_an_answer_that_goes_in_circles_is_refused(server: ScriptedServer) -> None:
    for _ in range(3):
        server.then(answer(200, {"items": rows(1), "next": "same"}))
    asked = source(server, items="items", paging={"by": "cursor", "param": "c", "at": "next"})
    with pytest.raises(SourceError, match="page 2 leads back to one that was read"):
        read(asked)


def test_an_answer_without_an_end_is_refused(server: ScriptedServer) -> None:
    server.then(*(answer(200, rows(n)) for n in range(4)))
    asked = source(server, paging={"by": "page", "param": "p"}, max_pages=3)
    with pytest.raises(SourceError, match="more than 3 pages"):
        read(asked)


def test_a_next_page_elsewhere_is_refused(server: ScriptedServer) -> None:
    with ScriptedServer() as other:
        server.then(answer(200, rows(1), {"link": f'<{other.url}/tickets>; rel="next"'}))
        with pytest.raises(SourceError, match="the next page is at another origin"):
            read(source(server, paging={"by": "link"}))
        assert other.received == []


def test_a_page_that_is_too_large_is_refused_before_it_is_whole(server: ScriptedServer) -> None:
    block = b" " * 2**20
    never = threading.Event()
    size = str(MOST_PAGE_BYTES * 2)
    server.then(Step([head(200, {"content-length": size}), *[block] * 66, never], end="close"))
    with pytest.raises(SourceError, match="a page is larger than 64 MB"):
        read(source(server))


LOAD: list[tuple[dict[str, Any], str]] = [
    ({"url": "http://example.org/x"}, "https; plain http is for this machine only"),
    ({"url": "ftp://example.org/x"}, "records are read over https"),
    ({"url": "https://u:secret@example.org/x"}, "have no place in YAML: see `auth`"),
    ({"url": "https://{partition}.example.org/x"}, "the host is the same for all partitions"),
    ({"params": {"a": "{strat}"}}, "{strat} is no bound; did you mean '{start}'?"),
    ({"params": {"a": "{start}"}}, "{start} and {end} go together"),
    ({"paging": {"by": "cursor", "param": "c"}}, "`by: cursor` needs `at`"),
    ({"paging": {"by": "page"}}, "`by: page` needs `param`"),
    ({"paging": {"by": "link", "param": "p"}}, "`param` says nothing to `by: link`"),
    ({"paging": {"by": "link", "first": 1}}, "`first` says nothing to `by: link`"),
    ({"paging": {"by": "links"}}, "'cursor', 'page', 'offset', 'link' or 'url'"),
    ({"auth": {"env": "T", "heder": "X"}}, "unknown key 'heder'; did you mean 'header'?"),
]


@pytest.mark.parametrize(("settings", "words"), LOAD)
def test_a_mistake_in_the_block_is_found_at_load(settings: dict[str, Any], words: str) -> None:
    values = {"type": "http", "url": "https://example.org/x", "id": "id"} | settings
    with pytest.raises(ValidationError) as caught:
        HttpSource.model_validate(values)
    text = explain(caught.value, "source")
    assert words in text
    assert "secret@" not in text.replace(repr(values["url"]), "")


# Trouble ------------------------------------------------------------------------------------------


def asking(server: ScriptedServer, waits: list[float], **settings: Any) -> Asking:
    values = {"headers": {}, "secret": None, "timeout_s": 10.0, "max_tries": 4} | settings
    return Asking(origin_of(server.url), sleep=waits.append, **values)


def page(server: ScriptedServer, waits: list[float], **settings: Any) -> bytes:
    own = asking(server, waits, **settings)
    with own.client() as client:
        return own.page(client, f"{server.url}/tickets?key=in-the-query").body


PASSING = {
    "429": answer(429, {"error": "slow down"}),
    "500": answer(500, b""),
    "502": answer(502, b"bad gateway"),
    "503": answer(503, b""),
    "reset": Step(end="reset"),
    "closed": Step(end="close"),
    "cut off": Step([head(200, {"content-length": "100"}) + b'[{"id"'], end="close"),
}


@pytest.mark.parametrize("trouble", PASSING)
def test_what_may_pass_is_tried_again(server: ScriptedServer, trouble: str) -> None:
    waits: list[float] = []
    server.then(PASSING[trouble], PASSING[trouble], answer(200, []))
    assert page(server, waits) == b"[]"
    assert [0.3 < waits[0] <= 0.5, 0.7 < waits[1] <= 1.0] == [True, True]


def test_a_server_that_falls_silent_is_asked_again(server: ScriptedServer) -> None:
    server.then(Step([threading.Event()], end="close"), answer(200, []))
    assert page(server, [], timeout_s=0.2) == b"[]"


def test_the_servers_retry_after_is_waited_for(server: ScriptedServer) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    waits: list[float] = []
    for text in ("7", soon, "1000000"):
        server.then(answer(429, b"", {"retry-after": text}))
    server.then(answer(200, []))
    assert page(server, waits) == b"[]"
    assert 7 <= waits[0] <= 7.7
    assert 50 <= waits[1] <= 110
    assert 300 <= waits[2] <= 330


def test_enough_is_enough(server: ScriptedServer) -> None:
    server.then(*(answer(503, b"down for repair") for _ in range(4)))
    with pytest.raises(PageFailed, match="the server answered 503: down for repair") as caught:
        page(server, [])
    assert caught.value.transient
    assert "in-the-query" not in str(caught.value)
    assert len(server.received) == 4


# The secret ---------------------------------------------------------------------------------------


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TICKETS_TOKEN", TOKEN)
    return TOKEN


def test_the_secret_is_sent_as_the_yaml_says(server: ScriptedServer, token: str) -> None:
    server.then(answer(200, rows(1)), answer(200, rows(1)))
    read(source(server, auth={"env": "TICKETS_TOKEN"}, headers={"x-team": "north"}))
    read(source(server, auth={"env": "TICKETS_TOKEN", "header": "X-Key", "prefix": ""}))
    assert server.received[0].headers["authorization"] == f"Bearer {token}"
    assert server.received[0].headers["x-team"] == "north"
    assert server.received[1].headers["x-key"] == token


@pytest.mark.parametrize("header", ["Authorization", "X-Key"])
def test_a_redirect_takes_the_secret_to_no_other_origin(
    server: ScriptedServer, token: str, header: str
) -> None:
    with ScriptedServer() as other:
        server.then(answer(302, b"", {"location": "/moved"}))
        server.then(answer(307, b"", {"location": f"{other.url}/elsewhere?signed=1"}))
        other.then(answer(200, rows(1)))
        auth = {"env": "TICKETS_TOKEN", "header": header}
        asked = source(server, auth=auth, headers={"x-team": "north"})
        assert ids(read(asked)) == {None: [1]}
        assert [header.lower() in one.headers for one in server.received] == [True, True]
        assert [one.target for one in other.received] == ["/elsewhere?signed=1"]
        assert not {header.lower(), "x-team"} & set(other.received[0].headers)


def test_no_error_holds_the_secret(server: ScriptedServer, token: str) -> None:
    server.then(answer(401, {"error": f"no access for Bearer {token}"}))
    with pytest.raises(SourceError, match=r"answered 401: .*\*\*\*.* check the variable") as caught:
        read(source(server, auth={"env": "TICKETS_TOKEN"}))
    assert token not in str(caught.value) + repr(caught.value)
    assert token not in repr(Secret("x", "Bearer ", token))


@pytest.mark.parametrize(
    ("value", "words"), [("", "is not set"), ("two\nlines", "can be in no header"), ("ü", "header")]
)
def test_a_secret_that_cannot_be_sent_is_an_error_without_it(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch, value: str, words: str
) -> None:
    monkeypatch.setenv("TICKETS_TOKEN", value)
    with pytest.raises(SourceError, match=f"auth.env: .*{words}") as caught:
        read(source(server, auth={"env": "TICKETS_TOKEN"}))
    assert not value or value not in str(caught.value)
    assert server.received == []


@pytest.mark.parametrize(
    ("url", "may"),
    [
        ("https://example.org/x", True),
        ("http://127.0.0.1:1/x", True),
        ("http://localhost/x", True),
        ("http://[::1]/x", True),
        ("http://example.org", False),
        ("http://127.0.0.1.example.org/", False),
        ("file:///etc/passwd", False),
        ("https:///x", False),
    ],
)
def test_https_or_this_machine(url: str, may: bool) -> None:
    if may:
        check_scheme(url)
        return
    with pytest.raises(SourceError, match="records are read over https"):
        check_scheme(url)
