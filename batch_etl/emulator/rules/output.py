"""``output_config``, and what all strict schemas of a request may cost together. Pure."""

from __future__ import annotations

from typing import Any

from batch_etl.emulator import schemas
from batch_etl.emulator.rules.sampling import EFFORTS
from batch_etl.emulator.shared import once

MOST_OPTIONAL = 24
MOST_UNIONS = 16


def check_output(params: dict[str, Any]) -> str | None:
    config = params.get("output_config")
    message = None if config is None else _check_config(config)
    return message or _check_costs(config, params.get("tools"))


@once
def _check_config(config: Any) -> str | None:
    if not isinstance(config, dict):
        return "output_config: Input should be a valid dictionary"
    extra = next((name for name in config if name not in ("format", "effort")), None)
    if extra is not None:
        return f"output_config.{extra}: Extra inputs are not permitted"
    if config.get("effort") not in (None, *EFFORTS):
        return "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'"
    return _check_format(config.get("format"))


def _check_format(wanted: Any) -> str | None:
    if wanted is None:
        return None
    if not isinstance(wanted, dict) or wanted.get("type") != "json_schema":
        return "output_config.format.type: Input should be 'json_schema'"
    if "schema" not in wanted:
        return "output_config.format.schema: Field required"
    extra = next((name for name in wanted if name not in ("type", "schema")), None)
    if extra is not None:
        return f"output_config.format.{extra}: Extra inputs are not permitted"
    refused = schemas.why_not_compiled(wanted["schema"])
    return f"output_config.format.{refused}" if refused else None


def _check_costs(config: dict[str, Any] | None, tools: list[Any] | None) -> str | None:
    """The limits are the structured-outputs page's (D); the words on optional parameters those of
    inbox-zero issue 2323 (R), those on unions likewise but for the noun.
    """
    of_format = _cost_of_format(config) if config else (0, 0)
    of_tools = _cost_of_tools(tools) if tools else (0, 0)
    optional, unions = of_format[0] + of_tools[0], of_format[1] + of_tools[1]
    if optional > MOST_OPTIONAL:
        return _too_many(f"optional parameters ({optional})", "optional parameters", MOST_OPTIONAL)
    if unions > MOST_UNIONS:
        return _too_many(f"parameters with union types ({unions})", "unions", MOST_UNIONS)
    return None


def _too_many(found: str, noun: str, most: int) -> str:
    return (
        f"Schemas contains too many {found}, which would make grammar compilation inefficient."
        f" Reduce the number of {noun} in your tool schemas (limit: {most})."
    )


@once
def _cost_of_format(config: dict[str, Any]) -> tuple[int, int]:
    wanted = config.get("format")
    return schemas.cost_of(wanted["schema"]) if wanted is not None else (0, 0)


@once
def _cost_of_tools(tools: list[Any]) -> tuple[int, int]:
    costs = [schemas.cost_of(tool["input_schema"]) for tool in tools if tool.get("strict")]
    return sum(optional for optional, _ in costs), sum(unions for _, unions in costs)
