"""Strings of a format or a pattern: found in a text, or the plainest legal one. Pure."""

from __future__ import annotations

import re
from typing import Any

_LOOK_FOR = {
    "email": r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*"
    r"@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}",
    "uri": r"https?://[A-Za-z0-9._~/?#@!$&'()*+,;=%-]*[A-Za-z0-9/]",
    "date": r"\b(?:19|20)\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])\b",
    "date-time": r"\b(?:19|20)\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])"
    r"T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d"
    r"(?:\.\d+)?(?:Z|[+-](?:0\d|1[0-4]):[0-5]\d)",
    "time": r"\b(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:Z|[+-](?:0\d|1[0-4]):[0-5]\d)",
    "ipv4": r"\b(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\.){3}(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)\b",
    "uuid": r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b",
}
_PATTERNS = {kind: re.compile(pattern, re.ASCII) for kind, pattern in _LOOK_FOR.items()}
_DEFAULTS = {
    "email": "unknown@example.invalid",
    "uri": "https://example.invalid/",
    "date": "1970-01-01",
    "date-time": "1970-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "P0D",
    "hostname": "example.invalid",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def look_for(kind: str, text: str) -> str | None:
    """The first string of that format in the text."""
    pattern = _PATTERNS.get(kind)
    found = pattern.search(text) if pattern else None
    return found[0] if found else None


def legal_default(kind: str) -> str:
    """A string of that format that names nothing real."""
    return _DEFAULTS.get(kind, "")


def from_pattern(pattern: str) -> str:
    """A short string that matches a regular expression; "" when none is found by simple means."""
    try:
        tree: Any = re._parser.parse(pattern)  # type: ignore[attr-defined]  # noqa: SLF001
        text = _shortest(tree)
    except (re.error, AttributeError, ValueError):
        return ""
    return text if re.search(pattern, text) else ""


def _shortest(tree: Any) -> str:
    return "".join(_atom(str(operation), argument) for operation, argument in tree)


def _atom(operation: str, argument: Any) -> str:  # noqa: PLR0911  a case a kind
    match operation:
        case "LITERAL":
            return chr(argument)
        case "NOT_LITERAL":
            return "a" if argument != ord("a") else "b"
        case "ANY":
            return "a"
        case "IN":
            return _member(argument)
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            least, _, inner = argument
            return _shortest(inner) * least
        case "SUBPATTERN":
            return _shortest(argument[-1])
        case "BRANCH":
            return _shortest(argument[1][0])
        case _:
            return ""


def _member(choices: Any) -> str:
    if str(choices[0][0]) == "NEGATE":
        taken = re.compile("[^" + "".join(map(_class_text, choices[1:])) + "]")
        return next(c for c in "a0 -_bZ9.~" if taken.match(c))
    kind, argument = str(choices[0][0]), choices[0][1]
    if kind == "LITERAL":
        return chr(argument)
    if kind == "RANGE":
        return chr(argument[0])
    return {"CATEGORY_DIGIT": "0", "CATEGORY_WORD": "a", "CATEGORY_SPACE": " "}.get(
        str(argument), "-"
    )


def _class_text(choice: Any) -> str:
    kind, argument = str(choice[0]), choice[1]
    if kind == "LITERAL":
        return re.escape(chr(argument))
    if kind == "RANGE":
        return f"{re.escape(chr(argument[0]))}-{re.escape(chr(argument[1]))}"
    classes = {"CATEGORY_DIGIT": r"\d", "CATEGORY_WORD": r"\w", "CATEGORY_SPACE": r"\s"}
    return classes.get(str(argument), "")
