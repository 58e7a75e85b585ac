"""What stands first of each record's question, of all that answers files tell, and what it cost.

    1. an answer (Succeeded), the transform's own before another's
    2. what failed and is for good (``history.py``), the latest attempt first
    3. the transform's own latest attempt
    4. what failed elsewhere and could not be asked again: it has become too large, say

Files are looked at in a few columns; those that tell of none of the questions, in their keys alone.
Other transforms' files are looked at only for records without an own answer, and for those whose
first attempts were another's. What a question cost is the sum over all attempts that were bought
for that very record, by this pipeline.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from batch_etl import arrow
from batch_etl.batches.answers import Answers, Judged, pico_usd, read_answers
from batch_etl.batches.history import SITUATION, for_good, kinds_in
from batch_etl.batches.keys import KeyMap, KeySet, Mask, Positions, from_arrow, halves, spread
from batch_etl.batches.retry import FAILED, Policy

NOBODY = -1
"""In the place of a file's number: nothing is told of the question."""

_LOOKED_AT = ["request_key", "row", "partition", "record_id", "cost_usd", *SITUATION]
_TIER = 1_000_000
_SUCCEEDED, _FOR_GOOD, _OWN, _ELSEWHERE = 4 * _TIER, 3 * _TIER, 2 * _TIER, _TIER


@dataclass(frozen=True)
class AnswerFile:
    """A collected batch whose answers may serve."""

    token: str
    batch_id: str | None
    attempt: int
    ended_at: dt.datetime | None
    own: bool
    """Of this transform: all its outcomes count. Otherwise only what was paid for."""
    same_pipeline: bool = True
    """Bought by this pipeline: what it cost shows here, and in no other pipeline's results."""


BoughtFor = Callable[[pa.RecordBatch, Positions], Mask]
"""(answers, records' positions) -> which answers were bought for the very record."""


class Chosen:
    """The rows of one answers file that stand first, and the positions of the records they are for.

    Found by the row's number, which is quicker than by its key.
    """

    def __init__(self, positions: Positions, rows: npt.NDArray[np.int32]) -> None:
        self._counts = np.bincount(rows, minlength=1)
        self._fans_out = self._counts.max() > 1
        if self._fans_out:
            self._positions = positions[np.argsort(rows, kind="stable")]
            self._starts = np.cumsum(self._counts) - self._counts
        else:  # a position's place is its row's number
            self._positions = np.zeros(len(self._counts), dtype=np.int64)
            self._positions[rows] = positions

    def of(self, rows: pa.RecordBatch) -> tuple[Positions, Positions]:
        """(row of ``rows``, record's position) of all that stand first, fan-out included."""
        number = arrow.numbers(rows.column("row"))
        known = np.minimum(number, len(self._counts) - 1)
        counts = np.where(number < len(self._counts), self._counts[known], 0)
        if not self._fans_out:
            index = np.flatnonzero(counts)
            return index, self._positions[number[index]]
        index, place = spread(self._starts[known], counts)
        return index, self._positions[place]


class Standing:
    """Of each record, by position, the file and row of the answer that stands first."""

    def __init__(self, keys: KeyMap, sendable: Mask, bought_for: BoughtFor) -> None:
        records = len(sendable)
        self.file = np.full(records, NOBODY, dtype=np.int32)
        self.row = np.zeros(records, dtype=np.int32)
        self.cost_pico_usd = np.zeros(records, dtype=np.int64)
        self.for_it = np.zeros(records, dtype=bool)
        """Records for which the answer that stands first was bought."""
        self.unpriced = np.zeros(records, dtype=bool)
        """Records for which something was bought at an unknown price."""
        self._keys = keys
        self._sendable = sendable
        self._bought_for = bought_for
        self._rank = np.zeros(records, dtype=np.int64)
        self._first_attempt = np.full(records, np.iinfo(np.int16).max, dtype=np.int16)

    def look(self, answers: Answers, files: Sequence[AnswerFile], policy: Policy) -> None:
        """Find what stands first. Of files that tell the same, the first one counts."""
        numbered = list(enumerate(files))
        self._look(answers, [one for one in numbered if one[1].own], policy, self._sendable)
        others_too = self._sendable & ((self._rank < _SUCCEEDED) | (self._first_attempt > 1))
        if others_too.any():
            self._look(answers, [one for one in numbered if not one[1].own], policy, others_too)

    def files(self) -> list[int]:
        """The numbers of the files in which anything stands first."""
        counts = np.bincount(self.file[self.file != NOBODY])
        return np.flatnonzero(counts).tolist()

    def standing_in(self, number: int) -> Chosen:
        """Finds the rows of file ``number`` that stand first, whatever block they come in."""
        positions = np.flatnonzero(self.file == number)
        return Chosen(positions, self.row[positions])

    def _look(
        self,
        answers: Answers,
        files: Iterable[tuple[int, AnswerFile]],
        policy: Policy,
        wanted: Mask,
    ) -> None:
        prefixes = self._keys.prefixes(wanted)
        for number, file in files:
            if not _tells_of(answers, file.token, prefixes):
                continue
            for rows in read_answers(answers, file.token, _LOOKED_AT):
                index, position = self._keys.positions(from_arrow(rows.column("request_key")))
                mine = wanted[position]
                index, position = index[mine], position[mine]
                if len(index):
                    chosen = taken(rows, index)
                    bought = self._note(chosen, position, file)
                    rank = _ranks(rows, file, policy)[index]
                    self._weigh(chosen, position, rank, number, bought)

    def _note(self, rows: pa.RecordBatch, position: Positions, file: AnswerFile) -> Mask:
        """Charge records with what was bought for them; which of these rows were."""
        if file.own:  # the same of all, so a position that stands twice does not matter
            first = np.minimum(self._first_attempt[position], file.attempt)
            self._first_attempt[position] = first
        if not file.same_pipeline:
            return np.zeros(len(position), dtype=bool)
        bought = self._bought_for(rows, position)
        cost = rows.column("cost_usd")
        np.add.at(self.cost_pico_usd, position[bought], pico_usd(cost)[bought])
        if cost.null_count:
            unknown = bought & arrow.flags(cost.is_null())
            self.unpriced[position[unknown]] = True
        return bought

    def _weigh(
        self,
        rows: pa.RecordBatch,
        position: Positions,
        rank: Positions,
        number: int,
        bought: Mask,
    ) -> None:
        """Let these rows stand where they rank higher than what stood there."""
        higher = rank > self._rank[position]
        position = position[higher]
        self._rank[position] = rank[higher]
        self.file[position] = number
        self.row[position] = arrow.numbers(rows.column("row"))[higher]
        self.for_it[position] = bought[higher]


def _tells_of(answers: Answers, token: str, prefixes: KeySet) -> bool:
    """Whether an answers file tells of any of these questions, by its keys alone."""
    folder = answers.folder if isinstance(answers, Judged) else answers
    return any(
        prefixes.contains(halves(from_arrow(rows.column("request_key")))[0]).any()
        for rows in read_answers(folder, token, ["request_key"])
    )


def taken(rows: pa.RecordBatch, index: Positions) -> pa.RecordBatch:
    """These rows, in this order; all of them as they are."""
    whole = len(index) == rows.num_rows and (index[1:] > index[:-1]).all()
    return rows if whole else rows.take(arrow.column(index))


def _ranks(rows: pa.RecordBatch, file: AnswerFile, policy: Policy) -> Positions:
    """How far before others each row stands; 0: not at all."""
    latest = file.attempt * 2 + file.own
    rank = np.full(rows.num_rows, _OWN + latest if file.own else 0, dtype=np.int64)
    failed = kinds_in(rows, FAILED)
    if not file.own:
        rank[failed] = _ELSEWHERE + latest
    rank[failed & for_good(policy, rows, file.attempt)] = _FOR_GOOD + latest
    rank[kinds_in(rows, frozenset({"Succeeded"}))] = _SUCCEEDED + file.own
    return rank
