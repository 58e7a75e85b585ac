"""``cache_control``: its shape, how many there may be, longer times to live first. Pure.

The limit of four and the order are the prompt-caching page's (D); the words on four blocks are
those of several issues (R, tghamm/Anthropic.SDK 50), the others our own.
"""

from __future__ import annotations

from typing import Any

from batch_etl.emulator.prompt_cache import marks

MOST_MARKS = 4
TTLS = ("5m", "1h")


def check_caching(params: dict[str, Any]) -> str | None:
    found = marks(params)
    for mark in found:
        if not isinstance(mark, dict) or mark.get("type") != "ephemeral":
            return "cache_control.type: Input should be 'ephemeral'"
        if mark.get("ttl", "5m") not in TTLS:
            return "cache_control.ephemeral.ttl: Input should be '5m' or '1h'"
    if len(found) > MOST_MARKS:
        return f"A maximum of 4 blocks with cache_control may be provided. Found {len(found)}."
    ttls = [mark.get("ttl", "5m") for mark in found]
    if ttls != sorted(ttls):  # "1h" sorts before "5m"
        return "cache_control: a ttl of '1h' must not come after one of '5m'"
    return None
