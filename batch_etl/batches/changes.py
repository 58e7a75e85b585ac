"""What is different from last time: in the task, and in the records.

    task_changes   two definitions of a task, as the ledger keeps them -> lines of text
    Earlier        the results that a partition has from before: is this record in them, and was
                   the same asked of it?

Records are compared by 64-bit hashes of their ids and the first halves of their request_keys, as
columns: 16 bytes a record. A pair of ids in a million million may be taken for one another, which
moves a count by one and nothing else.
"""

from __future__ import annotations

import datetime as dt
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute
from upath import UPath

from batch_etl.batches.keys import U64, from_arrow, halves
from batch_etl.batches.tables import TransformRow
from batch_etl.files import RowsOf, read_batches, row_count

pc: Any = pyarrow.compute  # its functions are made at import; a type checker sees none

_KEY_HEX = 32
_NAMED_OTHERWISE = frozenset({"params", "prompt", "schema", "betas"})
_MOST_LINES = 6
_MOST_PATHS = 8
_LONGEST = 100

# the task ---------------------------------------------------------------------------------------


def task_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What a task's definition says otherwise than an earlier one, one change a line or block."""
    old, new = _flat(before), _flat(after)
    changes: list[str] = []
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            changes += _changed(name, old.get(name), new.get(name))
    return changes


def asked_before(
    rows: Sequence[TransformRow], scope: Sequence[str | None], before: dt.datetime | None
) -> TransformRow | None:
    """The newest earlier transform that was planned, of the same partitions if there is one.

    ``rows`` are a pipeline's transforms, newest first; ``before`` is when the one in question was
    created (None: it is not yet). One that a budget refused has asked nothing.
    """
    earlier = [row for row in rows if row.counts and (before is None or row.created_at < before)]
    same = (row for row in earlier if set(row.scope) & set(scope))
    return next(same, earlier[0] if earlier else None)


def _flat(definition: Mapping[str, Any]) -> dict[str, Any]:
    """By the names that the user wrote; the API's form of the schema follows from the schema."""
    params = dict(definition.get("params") or {})
    named = {
        "claude_model": params.pop("model", None),
        "max_tokens": params.pop("max_tokens", None),
        "system": params.pop("system", None),
        "prompt": definition.get("prompt"),
        "output_schema": definition.get("schema"),
        "betas": definition.get("betas") or None,
    }
    config = dict(params.pop("output_config", None) or {})
    config.pop("format", None)
    rest = {**params, **({"output_config": config} if config else {})}
    further = {name: value for name, value in definition.items() if name not in _NAMED_OTHERWISE}
    return {**named, **further, **{f"params.{name}": value for name, value in rest.items()}}


def _changed(name: str, old: Any, new: Any) -> list[str]:
    if old is None or new is None:
        return [f"{name}: {_short(old)} -> {_short(new)}"]
    if isinstance(old, str) and isinstance(new, str) and "\n" in old + new:
        return ["\n".join([f"{name}:", *_lines(old, new)])]
    if isinstance(old, (dict, list)) and isinstance(new, (dict, list)):
        found = list(_differences(name, old, new))
        more = [f"{name}: and {len(found) - _MOST_PATHS} more"] if len(found) > _MOST_PATHS else []
        return [*found[:_MOST_PATHS], *more] or [f"{name}: in another order"]
    return [f"{name}: {_short(old)} -> {_short(new)}"]


def _lines(old: str, new: str) -> list[str]:
    """The lines that went (-) and came (+)."""
    diff = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=0)
    found = [line for line in diff if not line.startswith(("---", "+++", "@@"))]
    more = [f"  ... and {len(found) - _MOST_LINES} more lines"] if len(found) > _MOST_LINES else []
    return [*(f"  {_cut(line)}" for line in found[:_MOST_LINES]), *more]


def _differences(place: str, old: Any, new: Any) -> Iterator[str]:
    """Each place in two JSON values that is not the same."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*old, *new]):
            yield from _differences(f"{place}.{key}", old.get(key), new.get(key))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for at, (was, now) in enumerate(zip(old, new, strict=True)):
            yield from _differences(f"{place}[{at}]", was, now)
    elif old != new:
        yield f"{place}: {_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    if value is None:
        return "none"
    return _cut(value if isinstance(value, str) else msgspec.json.encode(value).decode())


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 4] + " ..."


# the records ------------------------------------------------------------------------------------


@dataclass
class Compared:
    """How records stand to what their partitions' results were before."""

    new: int = 0
    """Records that had no result."""
    changed: int = 0
    """Records that had one, of another request."""

    @property
    def counts(self) -> dict[str, int]:
        return {"new": self.new, "changed": self.changed}


class Earlier:
    """One partition's results as they are on disk; none is not an error."""

    def __init__(self, results: UPath) -> None:
        ids: list[U64] = [np.empty(0, np.uint64)]
        keys: list[U64] = [np.empty(0, np.uint64)]
        if results.exists():
            for rows in read_batches(results, ["record_id", "request_key"]):
                ids.append(id_hashes(rows.column("record_id")))
                keys.append(_prefixes(rows.column("request_key")))
        order = np.argsort(np.concatenate(ids), kind="stable")
        self._ids: U64 = np.concatenate(ids)[order]
        self._keys: U64 = np.concatenate(keys)[order]

    def compare(self, ids: U64, prefixes: U64, compared: Compared) -> None:
        """Count records by the hashes of their ids and the prefixes of their request_keys."""
        if not len(self._ids):
            compared.new += len(ids)
            return
        at = np.searchsorted(self._ids, ids)
        at[at == len(self._ids)] = 0
        known = self._ids[at] == ids
        compared.new += int((~known).sum())
        compared.changed += int((known & (self._keys[at] != prefixes)).sum())


def compare_plans(partitions: Sequence[tuple[UPath, UPath, UPath | None]]) -> Compared:
    """Of (a partition's plan, its results from before, the plan of these if it is known)."""
    compared = Compared()
    for plan, results, before in partitions:
        if not results.exists():
            compared.new += row_count(plan)
            continue
        changed = changed_in_place(plan, before) if before is not None else None
        if changed is not None:
            compared.changed += changed
            continue
        earlier = Earlier(results)
        for rows in read_batches(plan, ["record_id", "request_key"]):
            prefixes, _ = halves(from_arrow(rows.column("request_key")))
            earlier.compare(id_hashes(rows.column("record_id")), prefixes, compared)
    return compared


def changed_in_place(plan: UPath, before: UPath) -> int | None:
    """How many requests are others than in an earlier plan of the same records in the same order.

    None for other records: a record that was added, is gone or stands elsewhere.
    """
    if not before.exists() or row_count(plan) != row_count(before):
        return None
    changed, names = 0, ["record_id", "request_key"]
    then = RowsOf(read_batches(before, names))
    for rows in read_batches(plan, names):
        earlier = then.next(rows.num_rows)
        if earlier is None or not rows.column("record_id").equals(earlier.column("record_id")):
            return None
        keys, keys_then = (from_arrow(one.column("request_key")) for one in (rows, earlier))
        changed += int((keys != keys_then).sum())
    return changed


def id_hashes(ids: pa.Array[Any]) -> U64:
    """A 64-bit hash of each text: its bytes, each times a number of its place, summed."""
    _, offsets, data = ids.buffers()
    limits = np.frombuffer(offsets, np.int32)[ids.offset : ids.offset + len(ids) + 1]
    limits = limits.astype(np.int64)
    text = np.frombuffer(data or b"", np.uint8)[limits[0] : limits[-1]]
    limits = limits - limits[0]
    lengths = np.diff(limits)
    place = np.arange(len(text)) - np.repeat(limits[:-1], lengths)
    numbers = _mixed(np.arange(1, int(lengths.max(initial=0)) + 2, dtype=np.uint64)) | np.uint64(1)
    sums = np.concatenate(
        [
            np.zeros(1, np.uint64),
            np.cumsum((text.astype(np.uint64) + np.uint64(1)) * numbers[place]),
        ]
    )
    return _mixed(sums[limits[1:]] - sums[limits[:-1]] + numbers[lengths])


def _mixed(values: U64) -> U64:
    """Spread bits (splitmix64's finish), wrapping at 64."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _prefixes(keys: pa.Array[Any]) -> U64:
    """The first halves of request_keys that are written as hex; 0 where there is none."""
    whole = pc.fill_null(keys, "0" * _KEY_HEX)
    _, offsets, data = whole.buffers()
    first = int(np.frombuffer(offsets, np.int32)[whole.offset])
    letters = np.frombuffer(data or b"", np.uint8)[first : first + _KEY_HEX * len(whole)]
    half = letters.reshape(-1, _KEY_HEX)[:, : _KEY_HEX // 2].tobytes()
    return np.frombuffer(bytes.fromhex(half.decode("ascii")), ">u8").astype(np.uint64)
