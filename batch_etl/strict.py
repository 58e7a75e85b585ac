"""The base of all that users write in YAML: unknown keys are refused, the nearest one named."""

from __future__ import annotations

import difflib
from typing import Any, Self

import pydantic

from batch_etl.errors import ConfigError


class Strict(pydantic.BaseModel):
    """A frozen pydantic model that forbids unknown keys and explains itself in one sentence."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _no_unknown_keys(cls, values: Any) -> Any:
        if isinstance(values, dict):
            known = {field.alias or name for name, field in cls.model_fields.items()}
            for key in values:  # pyright: ignore[reportUnknownVariableType]
                if key not in known:
                    raise ValueError(unknown_key(str(key), known))  # pyright: ignore[reportUnknownArgumentType]
        return values  # pyright: ignore[reportUnknownVariableType]

    @classmethod
    def load(cls, values: object, where: str) -> Self:
        """Validate ``values``; raise ``ConfigError`` whose message starts with ``where``."""
        try:
            return cls.model_validate(values)
        except pydantic.ValidationError as error:
            raise ConfigError(explain(error, where)) from None


def unknown_key(key: str, known: set[str]) -> str:
    """One sentence naming an unknown key and the nearest known one."""
    return f"unknown key {key!r}{did_you_mean(key, known)}"


def did_you_mean(name: str, known: set[str] | list[str]) -> str:
    """``"; did you mean 'x'?"``, or the list of all known names where none is near."""
    near = difflib.get_close_matches(name, sorted(known), n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known are {', '.join(sorted(known)) or 'none'}"


def explain(error: pydantic.ValidationError, where: str) -> str:
    """All problems of a validation error as lines ``where.key: what is wrong (got ...)``."""
    return "\n".join(_line(where, problem) for problem in error.errors())


def _line(where: str, problem: Any) -> str:
    key = ".".join([where, *(str(part) for part in problem["loc"])])
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] in {"missing", "value_error"}:
        return f"{key}: {message}"
    return f"{key}: {message} (got {_short(problem['input'])})"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
