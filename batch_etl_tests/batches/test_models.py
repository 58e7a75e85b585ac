"""Model facts, and what the API would refuse for each."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from batch_etl.batches.models import (
    LONG_OUTPUT_BETA,
    MODELS,
    check_model,
    check_params,
    known,
    nearest,
    warn_model,
)

TODAY = date(2026, 11, 23)


def strict(count: int, required: list[str], kind: dict[str, Any]) -> dict[str, Any]:
    """A strict tool whose input has so many properties of a kind."""
    properties = {f"p{n}": kind for n in range(count)}
    schema = {"type": "object", "properties": properties, "required": required}
    return {"name": "t", "strict": True, "input_schema": schema}


@pytest.mark.parametrize(
    ("name", "id_", "max_output_tokens", "context_tokens"),
    [
        ("claude-haiku-4-5", "claude-haiku-4-5-20251001", 64_000, 200_000),
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5-20251001", 64_000, 200_000),
        ("claude-opus-5", "claude-opus-5", 128_000, 1_000_000),
        ("claude-haiku-5-5", "claude-haiku-5-5", 128_000, 1_000_000),
        ("emulator:claude-sonnet-5-5", "claude-sonnet-5-5", 128_000, 1_000_000),
        ("claude-3-7-sonnet-20250219", "claude-3-7-sonnet", None, None),
        ("claude-opus-4-20250514", "claude-opus-4", None, None),
    ],
)
def test_a_model_is_known_by_id_alias_and_emulated_name(
    name: str, id_: str, max_output_tokens: int | None, context_tokens: int | None
) -> None:
    facts = known(name)
    assert facts is not None
    assert facts.id == id_
    assert (facts.max_output_tokens, facts.context_tokens) == (max_output_tokens, context_tokens)


@pytest.mark.parametrize("name", ["claude-opus-5-20260724", "claude-haiku-9", "gpt-5", ""])
def test_a_made_up_name_is_not_known(name: str) -> None:
    """Dateless ids have no dated form: the API answers not_found (section 12)."""
    assert known(name) is None


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("claude-haiku-4.5", "claude-haiku-4-5"),
        ("claude-haiku-55", "claude-haiku-5-5"),
        ("anthropic/claude-opus-4.8", "claude-opus-4-8"),
        ("us.anthropic.claude-sonnet-4-6", "claude-sonnet-4-6"),
        ("haiku", "claude-haiku-5-5"),
        ("zzzz", None),
    ],
)
def test_the_nearest_name_in_use_is_offered(name: str, expected: str | None) -> None:
    assert nearest(name) == expected


def test_ids_and_aliases_are_distinct() -> None:
    names = [name for facts in MODELS for name in (facts.id, *facts.aliases)]
    assert len(names) == len(set(names))


def test_an_unknown_model_is_a_finding_that_names_the_nearest() -> None:
    [finding] = check_params("claude-haiku-4.5", {})
    assert (
        finding == "model 'claude-haiku-4.5' is not a known model; did you mean 'claude-haiku-4-5'?"
    )


def test_a_retired_model_is_a_finding_with_its_successor() -> None:
    [finding] = check_model("claude-opus-4-1", TODAY)
    assert finding == "model 'claude-opus-4-1' was retired on 2026-08-05; use 'claude-opus-5-5'"


def test_a_deprecated_model_warns_until_its_last_day() -> None:
    assert check_model("claude-sonnet-4-5", TODAY) == []
    [warning] = warn_model("claude-sonnet-4-5", TODAY)
    assert "retires on 2026-11-30; move to 'claude-sonnet-5-5'" in warning
    assert check_model("claude-sonnet-4-5", date(2026, 11, 30))
    assert warn_model("claude-haiku-4-5", TODAY) == []


FORCED: dict[str, Any] = {"tool_choice": {"type": "tool", "name": "label"}}
FORMAT: dict[str, Any] = {"output_config": {"format": {"type": "json_schema", "schema": {}}}}
PREFILL: dict[str, Any] = {"messages": [{"role": "user"}, {"role": "assistant", "content": "{"}]}


def thinking(kind: str) -> dict[str, Any]:
    return {"thinking": {"type": kind}}


@pytest.mark.parametrize(
    ("model", "params", "word"),
    [
        ("claude-opus-5-5", FORCED, "tool_choice"),
        ("claude-sonnet-5-5", {"tool_choice": {"type": "any"}}, "tool_choice"),
        ("claude-fable-5-1", FORCED, "tool_choice"),
        ("claude-fable-5-2", FORCED, "tool_choice"),
        ("claude-opus-4-6", PREFILL, "prefill"),
        ("claude-haiku-5-5", PREFILL, "prefill"),
        ("claude-haiku-4-5", PREFILL | FORMAT, "prefilled"),
        ("claude-opus-4-1", FORMAT, "structured outputs"),
        ("claude-opus-4-7", {"temperature": 0}, "temperature"),
        ("claude-sonnet-5", {"top_k": 5}, "top_k"),
        ("claude-haiku-4-5", {"max_tokens": 64_001}, "64000"),
        ("claude-opus-5", {"max_tokens": 128_001}, "128000"),
        ("claude-opus-5", {"max_tokens": 0}, "at least 1"),
        ("claude-opus-5", {"max_tokens": "many"}, "'many'"),
        ("claude-opus-5-5", thinking("disabled"), "adaptive"),
        ("claude-fable-5", thinking("disabled"), "adaptive"),
        ("claude-opus-4-7", thinking("enabled"), "adaptive or disabled"),
        ("claude-haiku-4-5", thinking("adaptive"), "disabled or enabled"),
        ("claude-opus-5", {"stream": True}, "stream"),
        ("claude-opus-5", {"speed": "fast"}, "fast mode"),
        ("claude-opus-5", {"fallbacks": []}, "fallbacks"),
        ("claude-opus-5", {"store": True}, "store"),
        ("claude-opus-5", {"betas": []}, "header"),
        ("claude-opus-5", {"output_format": {}}, "output_config.format"),
        ("claude-opus-5", {"max_token": 5}, "did you mean 'max_tokens'"),
        ("claude-opus-5", {"service_tier": "batch"}, "standard_only"),
        ("claude-opus-5", {"output_config": {"effort": "huge"}}, "'huge'"),
        ("claude-opus-5", {"tools": [{"strict": True}] * 21}, "at most 20"),
        ("claude-opus-5", {"tools": [strict(25, [], {"type": "null"})]}, "25 properties of strict"),
        ("claude-opus-5", {"tools": [strict(13, [], {"type": "null"})] * 2}, "26 properties of"),
        (
            "claude-opus-5",
            {"tools": [strict(17, [f"p{n}" for n in range(17)], {"type": ["string", "null"]})]},
            "17 properties of strict tools are of several types",
        ),
        (
            "claude-opus-4-5",
            {"thinking": {"type": "enabled"}, "tool_choice": {"type": "any"}},
            "does not go with thinking.type 'enabled'",
        ),
        (
            "claude-opus-5",
            {"tools": [{"name": "a"}], "tool_choice": {"type": "tool", "name": "b"}},
            "'b', which is not among the tools",
        ),
    ],
)
def test_what_the_api_would_refuse_is_found_before_anything_is_sent(
    model: str, params: dict[str, Any], word: str
) -> None:
    [finding] = check_params(model, params)
    assert word in finding


@pytest.mark.parametrize(
    ("model", "params"),
    [
        ("claude-opus-5-5", {"tool_choice": {"type": "auto"}} | FORMAT),
        ("claude-haiku-5-5", FORCED),
        ("claude-fable-5", FORCED),
        ("claude-haiku-4-5", PREFILL),
        ("claude-haiku-4-5", {"temperature": 0, "top_p": 0.9}),
        ("claude-opus-4-7", {"temperature": 1}),
        ("claude-haiku-4-5", thinking("enabled")),
        ("claude-opus-4-6", thinking("enabled")),
        ("claude-opus-4-6", thinking("adaptive")),
        ("claude-opus-5", {"stream": False, "max_tokens": 128_000}),
        ("claude-opus-5", {"system": "Be brief.", "metadata": {"user_id": "x"}}),
    ],
)
def test_what_the_api_takes_is_not_complained_of(model: str, params: dict[str, Any]) -> None:
    assert check_params(model, params) == []


def test_sampling_parameters_do_not_exist_in_the_version_of_2026_10_21() -> None:
    params = {"temperature": 1}
    assert check_params("claude-haiku-4-5", params, anthropic_version="2023-06-01") == []
    [finding] = check_params("claude-haiku-4-5", params, anthropic_version="2026-10-21")
    assert "temperature does not exist" in finding


def test_the_long_output_beta_raises_the_limit_only_where_documented() -> None:
    params, beta = {"max_tokens": 300_000}, [LONG_OUTPUT_BETA]
    assert check_params("claude-opus-5-5", params, betas=beta) == []
    assert check_params("claude-opus-5-5", params) != []
    assert check_params("claude-haiku-5-5", params, betas=beta) != []


def test_a_beta_may_bring_fields_of_its_own() -> None:
    assert check_params("claude-opus-5", {"mcp_servers": []}, betas=["mcp-client-2026-09-15"]) == []
    assert check_params("claude-opus-5", {"mcp_servers": []}) != []


def test_an_unknown_model_is_still_held_to_the_rules_of_all_models() -> None:
    findings = check_params("local-model", {"stream": True, "temperature": 0.2})
    assert len(findings) == 2
