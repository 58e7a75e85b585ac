"""How good the answers are: variants of a task over records whose right answer is known.

A case is one record with its expected values. Each variant of the task (another prompt, model or
parameter) has answered each case, in its own table of the warehouse. From these come

    scorers      one expected and one given value -> a score from 0 to 1           pure
    metrics      scores -> means with their intervals, F1, kappa, a confusion      pure
    comparison   two variants over the same cases: who is right where              pure
    cases        the answers as the warehouse has them
    known_good   answers that were approved, in a file of the repository
    gates        what must hold, and whether it does                               pure
    tables       all of it as Arrow tables for the warehouse

A case without an answer (its record is in review) counts as wrong, with a score of 0: what cannot
be used is no better than what is wrong. Intervals are 95% bootstrap intervals of the mean, drawn
with a fixed seed, so that the same answers always give the same numbers.

Counting is done on distinct values with their frequencies, never on a list a case long: a metric
of a million cases costs what its labels cost. Metrics themselves are scikit-learn's and SciPy's,
the extra ``batch-etl[evaluation]``.
"""

from __future__ import annotations

from batch_etl.evaluation.cases import Case, read_cases
from batch_etl.evaluation.comparison import Comparison, compare
from batch_etl.evaluation.gates import Gate, Ruling, rule
from batch_etl.evaluation.known_good import KnownGood
from batch_etl.evaluation.metrics import Metric, confusion, measure
from batch_etl.evaluation.scorers import Score

__all__ = [
    "Case",
    "Comparison",
    "Gate",
    "KnownGood",
    "Metric",
    "Ruling",
    "Score",
    "compare",
    "confusion",
    "measure",
    "read_cases",
    "rule",
]
