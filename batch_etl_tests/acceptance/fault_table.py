"""The table of faults, filled by running every case now.

    python -m batch_etl_tests.acceptance.fault_table [WORD ...]

Prints Markdown, a row as soon as its case has ended: what goes wrong, what must hold, what came of
it here by the emulator's count, and what other tools did. With words, only the rows that have one
of them. Exits with 1 if a case failed, and says on stderr what did not hold.

The columns of the others are facts of an earlier measurement of these versions, 500 records, one
fault at a time, against a server that plays the same API; they are not measured again here. "2x":
every request was bought twice. Empty: not measured. Of 2% and 5% of the lines, their draw had 11
and 32; here it is exactly 10 and 25.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable

import batch_etl
from batch_etl_tests.acceptance.fault_cases import CASES, Case
from batch_etl_tests.acceptance.fault_check import Measured

OTHERS = (
    "steadybatch 0.2.1",
    "batchlane 0.2.0",
    "llm-batch-py 0.1.8",
    "batchata 0.4.7",
    "bespokelabs-curator 0.1.31",
    "dagster-community-components 0.10.120 `AnthropicLlmBatchComponent`",
    "apache-airflow-providers-common-ai 1.0.0 `LLMBatchOperator`",
)

_TASK_CHANGED = (*[""] * 5, "old answers returned", "")

MEASURED_EARLIER: dict[str, tuple[str, ...]] = {
    "connection dropped after the server accepted the create": ("2x",) * 7,
    "HTTP 500 after accept": ("2x",) * 7,
    "killed between submit and record, rerun": (
        *("2x", "1x", "2x", "2x", "2x", "stops, asks a human", "2x"),
    ),
    "result stream cut halfway": (
        *("crash; rerun ok", "ok", "crash; rerun ok", "all 500 marked failed", "crash; rerun ok"),
        *("rerun refuses for ever", "fails; rerun ok"),
    ),
    "2% of lines missing from the results": (
        *("ok", "11 failed", "pending for ever", "11 vanish silently", "11 fewer rows"),
        *("11 vanish, run green", '11 "missing" rows'),
    ),
    "5% errored (server's fault)": (
        *("ok", "32 failed", "32 held", "32 failed", "every rerun crashes"),
        *("32 error rows", "32 error rows"),
    ),
    "5% expired": (
        *("ok", "32 failed", "ok", "32 failed", "every rerun crashes"),
        *("32 rows, no retry", "32 rows"),
    ),
    "poll answers 500 four times": (*("crash", "ok", "crash", "ok", "ok", "rerun refuses", "ok"),),
    "create answers 429 three times": (
        *("ok", "ok", "ok", "all failed for good", "crash", "fails", "fails"),
    ),
    "5 duplicate result lines": (
        *("ok", "raises, no rows", "refetches each run", "cost counted twice", "505 rows"),
        *("505 rows", "ok"),
    ),
    "model changed, rerun": _TASK_CHANGED,
    "prompt changed, rerun": _TASK_CHANGED,
    "one record added, rerun": (*[""] * 5, "all re-sent and re-paid", "all re-paid"),
    "rows in another order, rerun": (*[""] * 5, "all re-sent", ""),
    "500 records with 25 distinct texts": ("", "", "all sent", "", "", "", ""),
}
"""What each of the others did under a fault."""

_OURS = ("records answered", "requests sent", "billed", "billed twice", "batches", "runs")


def main(cases: Iterable[Case] = CASES) -> int:
    """Run the cases and print the table; the exit code."""
    _print("fault", "must hold", *_OURS, f"batch_etl {batch_etl.__version__}", *OTHERS)
    _print(*["---"] * (3 + len(_OURS) + len(OTHERS)))
    failed = 0
    for case in cases:
        measured = case.measure()
        failed += bool(measured.problems)
        others = MEASURED_EARLIER.get(case.fault, ("",) * len(OTHERS))
        _print(case.fault, case.must, *_came_to(measured), *others)
        for problem in measured.problems:
            print(f"{case.fault}: {problem}", file=sys.stderr, flush=True)
    return 1 if failed else 0


def _came_to(measured: Measured) -> list[str]:
    numbers = (
        f"{measured.answered} of {measured.records}",
        *(measured.received, measured.billed, measured.billed_twice),
        *(measured.creates, measured.runs),
    )
    return [*map(str, numbers), "FAILED" if measured.problems else "pass"]


def _print(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # the engine's, of the faults that it meets
    words = sys.argv[1:]
    chosen = [case for case in CASES if not words or any(word in case.fault for word in words)]
    sys.exit(main(chosen))
