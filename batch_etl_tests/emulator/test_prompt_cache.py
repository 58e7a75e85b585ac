"""What is written to the prompt cache, what is read from it, and for how long."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from batch_etl.emulator.models import Model, find
from batch_etl.emulator.prompt_cache import CROWD, PromptCache
from batch_etl_tests.emulator.driver import Driver, lines, params, process

MODEL = "claude-sonnet-4-6"
RULES = "rules " * 700
"""1,050 tokens by the emulator's rule: a little more than the model's least."""


def model() -> Model:
    found = find(MODEL)
    assert found is not None
    return found


def marked(text: str = RULES, ttl: str = "5m") -> dict[str, Any]:
    return {"type": "text", "text": text, "cache_control": {"type": "ephemeral", "ttl": ttl}}


def cached_lines(count: int, ttl: str = "5m") -> list[Any]:
    return lines(count, model=MODEL, system=[marked(ttl=ttl)])


def usages(driver: Driver, requests: list[Any]) -> list[dict[str, Any]]:
    return [result["message"]["usage"] for result in driver.run(requests).values()]


def shares(driver: Driver, requests: list[Any]) -> tuple[int, int]:
    """How many lines wrote, and how many read."""
    found = usages(driver, requests)
    wrote = sum(usage["cache_creation_input_tokens"] > 0 for usage in found)
    return wrote, sum(usage["cache_read_input_tokens"] > 0 for usage in found)


def test_the_first_lines_of_a_batch_write_side_by_side_and_the_others_read(driver: Driver) -> None:
    found = usages(driver, cached_lines(CROWD + 4, ttl="1h"))
    wrote = Counter(usage["cache_creation_input_tokens"] for usage in found)
    assert wrote == {1050: CROWD, 0: 4}
    assert Counter(usage["cache_read_input_tokens"] for usage in found) == {0: CROWD, 1050: 4}
    long = sum(usage["cache_creation"]["ephemeral_1h_input_tokens"] for usage in found)
    assert long == 1050 * CROWD
    assert all(usage["input_tokens"] < 30 for usage in found)


def test_one_line_ahead_saves_the_others_the_write(driver: Driver) -> None:
    driver.clock(frozen=True)
    assert shares(driver, cached_lines(1)) == (1, 0)
    driver.clock(advance_s=60)
    assert shares(driver, cached_lines(30)) == (0, 30)


@pytest.mark.parametrize(
    ("ttl", "pause_s", "read"), [("5m", 301, 0), ("5m", 299, 3), ("1h", 3_599, 3)]
)
def test_an_entry_lives_for_its_time(driver: Driver, ttl: str, pause_s: int, read: int) -> None:
    driver.clock(frozen=True)
    driver.run(cached_lines(1, ttl))
    driver.clock(advance_s=pause_s)
    assert shares(driver, cached_lines(3, ttl))[1] == read


def test_each_use_prolongs_an_entry(driver: Driver) -> None:
    driver.clock(frozen=True)
    driver.run(cached_lines(1))
    for _ in range(3):
        driver.clock(advance_s=200)
        assert shares(driver, cached_lines(1)) == (0, 1)


def test_a_batch_reads_nothing_of_one_that_has_not_ended(driver: Driver) -> None:
    driver.pace(end_s=3600)
    first = driver.create(cached_lines(1))
    second = driver.create(cached_lines(1))
    driver.clock(advance_s=3700)
    for made in (first, second):
        [result] = driver.by_id(made).values()
        assert result["message"]["usage"]["cache_creation_input_tokens"] == 1050


def test_what_was_cached_outlives_the_process(tmp_path: Any) -> None:
    with process(tmp_path, "--end-s", "0") as first:
        assert shares(first.driver, cached_lines(1)) == (1, 0)
    with process(tmp_path) as second:
        assert shares(second.driver, cached_lines(2)) == (0, 2)


def test_a_short_prefix_is_not_cached_and_no_error_says_so(driver: Driver) -> None:
    short = lines(2, model=MODEL, system=[marked("rules " * 600)])
    assert shares(driver, short) == (0, 0)


def warm(cache: PromptCache, asked: dict[str, Any]) -> dict[str, Any]:
    """The usage of such a line when others have written its prefixes."""
    for _ in range(CROWD):
        cache.usage(asked, model())
    return cache.usage(asked, model())


def asked(*blocks: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return params("short", model=MODEL, system=list(blocks), **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "claude-opus-4-8"},
        {"tools": [{"name": "t", "input_schema": {"type": "object"}}]},
    ],
)
def test_another_model_or_tool_is_another_prefix(changes: dict[str, Any]) -> None:
    cache = PromptCache()
    assert warm(cache, asked(marked()))["cache_read_input_tokens"] == 1050
    other = {**asked(marked()), **changes}
    assert cache.usage(other, find(other["model"]))["cache_read_input_tokens"] == 0


def test_a_mark_finds_what_another_wrote_before_it() -> None:
    cache = PromptCache()
    warm(cache, asked(marked()))
    longer = cache.usage(asked(marked(), marked("more " * 800, "5m")), model())
    assert longer["cache_read_input_tokens"] == 1050
    assert longer["cache_creation_input_tokens"] == 1000
    far = [{"type": "text", "text": f"n{n}"} for n in range(20)]
    beyond = cache.usage(asked({"type": "text", "text": RULES}, *far, marked("end")), model())
    assert beyond["cache_read_input_tokens"] == 0


def test_writes_are_split_by_their_time_to_live() -> None:
    usage = PromptCache().usage(asked(marked(ttl="1h"), marked("more " * 800)), model())
    assert usage["cache_creation"] == {
        "ephemeral_1h_input_tokens": 1050,
        "ephemeral_5m_input_tokens": 1000,
    }


def test_automatic_caching_marks_the_last_block() -> None:
    cache = PromptCache()
    one = asked({"type": "text", "text": RULES}, cache_control={"type": "ephemeral"})
    assert warm(cache, one)["cache_read_input_tokens"] == 1050 + 2
    other = {**one, "messages": [{"role": "user", "content": "another"}]}
    assert cache.usage(other, model())["cache_read_input_tokens"] == 0
