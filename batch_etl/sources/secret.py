"""Values that a source's YAML names by environment variable, read when they are needed.

The one place where sources look into the environment. A value goes to whom it is for, and is taken
out of every text that comes back from there.
"""

from __future__ import annotations

import os
from urllib.parse import quote

from batch_etl.errors import SourceError

_HIDDEN = "***"


def secret(variable: str, key: str) -> str:
    """The variable's value. Raises SourceError where it is not set; ``key`` is the YAML's."""
    value = os.environ.get(variable, "").strip()
    if not value:
        raise SourceError(
            f"{key}: the environment variable {variable} is not set where the pipeline runs; set "
            "it there, or name another one"
        )
    return value


def without(text: str, *secrets: str | None) -> str:
    """The text with each secret, also as it is written in a URL, replaced by ``***``."""
    for one in sorted({form for value in secrets for form in _forms(value)}, key=len, reverse=True):
        text = text.replace(one, _HIDDEN)
    return text


def _forms(value: str | None) -> list[str]:
    return [] if not value else [value, quote(value), quote(value, safe="")]
