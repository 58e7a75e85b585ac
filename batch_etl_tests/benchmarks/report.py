"""What the suite found, as text, as Markdown and as a plot. Pure, but for ``write_docs``.

The page ``docs/performance.md`` has a part that is written by hand and, between two marks, the part
that the suite writes.
"""

from __future__ import annotations

import math
from pathlib import Path
from statistics import median
from typing import Any

BEGIN = "<!-- written by `make bench-docs`; do not edit -->"
END = "<!-- end of what `make bench-docs` writes -->"
COLORS: dict[str, str] = {"floor": "#2f855a", "ours": "#2b6cb0", "usual": "#c05621"}
NAMES: dict[str, str] = {"floor": "floor", "ours": "batch_etl", "usual": "usual way"}
Report = dict[str, Any]
Table = list[list[str]]


def as_text(report: Report) -> str:
    """The tables as they are printed."""
    return "\n\n".join([_machine(report), *(_plain(rows) for rows in _tables(report))])


def as_markdown(report: Report) -> str:
    """The part of the page that the suite writes."""
    parts = [BEGIN, _machine(report), "![CPU time against the number of records](performance.svg)"]
    return "\n\n".join([*parts, *(_markdown(rows) for rows in _tables(report)), END]) + "\n"


def write_docs(report: Report, docs: Path) -> None:
    """Replace the suite's part of ``docs/performance.md``, and its plot."""
    page = docs / "performance.md"
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END + "\n")
    page.write_text(before + as_markdown(report) + after, encoding="utf-8")
    (docs / "performance.svg").write_text(plot(report), encoding="utf-8")


def _named(program: str) -> str:
    return NAMES.get(program) or program.replace("ours", NAMES["ours"])


def _machine(report: Report) -> str:
    machine = report["machine"]
    return (
        f"Measured {report['begun_at']} on {machine['cpus']} CPUs ({machine['system']}, Python "
        f"{machine['python']}), load {machine['load_before']} before and {machine['load_after']} "
        f"after, medians of {report['rounds']} rounds{_fewer(report)}. CPU is user and system "
        "time; µs a record is of the whole process, imports included."
    )


def _fewer(report: Report) -> str:
    """What was sampled in fewer rounds than the rest."""
    fewer = [
        f"; the {_named(name)} at {int(size):,} records: {len(found['samples'])}"
        for size, programs in report["sizes"].items()
        for name, found in programs.items()
        if len(found["samples"]) < report["rounds"]
    ]
    return "".join(fewer)


def _tables(report: Report) -> list[Table]:
    return [_wholes(report), _ratios(report), _stages(report)]


def _wholes(report: Report) -> Table:
    rows: Table = [
        ["records", "program", "wall s", "CPU s", "µs a record", "peak MB", "server CPU s"]
    ]
    for size, programs in report["sizes"].items():
        for name, found in programs.items():
            whole = found["median"]["whole"]
            rows.append(
                [
                    f"{int(size):,}",
                    _named(name),
                    f"{whole['wall_s']:.2f}",
                    f"{whole['cpu_s']:.2f}",
                    f"{whole['cpu_s'] / int(size) * 1e6:.1f}",
                    f"{whole['peak_mb']:.0f}",
                    f"{found['median']['server_cpu_s']:.2f}",
                ]
            )
    return rows


def _stages(report: Report) -> Table:
    rows: Table = [["records", "program", "stage", "wall s", "CPU s", "µs a record", "peak MB"]]
    for size, programs in report["sizes"].items():
        for name, found in programs.items():
            for stage, spent in found["median"]["stages"].items():
                rows.append(
                    [
                        f"{int(size):,}",
                        _named(name),
                        stage,
                        f"{spent['wall_s']:.2f}",
                        f"{spent['cpu_s']:.2f}",
                        f"{spent['cpu_s'] / int(size) * 1e6:.1f}",
                        f"{spent['peak_mb']:.0f}",
                    ]
                )
    return rows


def _ratios(report: Report) -> Table:
    rows: Table = [["ratio, median of the rounds'", "records", "CPU", "wall", "peak memory"]]
    for size, programs in report["sizes"].items():
        pairs = [("ours", "floor"), ("usual", "ours"), *((k, "ours") for k in list(programs)[3:])]
        if "usual" not in programs:
            pairs = [("ours", "floor"), *((k, "ours") for k in list(programs)[2:])]
        for over, under in pairs:
            a, b = (programs[name]["samples"] for name in (over, under))
            said = f"{_named(over)} / {_named(under)}"
            keys = ("cpu_s", "wall_s", "peak_mb")
            rows.append([said, f"{int(size):,}", *(f"{_ratio(a, b, k):.2f}" for k in keys)])
        ledger = [s["stages"]["ledger"]["cpu_s"] / s["whole"]["cpu_s"] for s in _ours(programs)]
        share = f"{median(ledger):.3f}"
        rows.append(["the ledger's share of batch_etl's run", f"{int(size):,}", share, "", ""])
    return rows + _growth(report)


def _growth(report: Report) -> Table:
    """CPU a record, and the peak, at the largest number of records against the next smaller."""
    sizes = [int(size) for size in report["sizes"]]
    if len(sizes) < 2:
        return []
    small, large = sizes[-2:]
    a, b = (_ours(report["sizes"][str(size)]) for size in (large, small))
    cpu = _ratio(a, b, "cpu_s") * small / large
    said = f"batch_etl at {large:,} / at {small:,}, a record (memory: whole)"
    return [[said, "", f"{cpu:.2f}", "", f"{_ratio(a, b, 'peak_mb'):.2f}"]]


def _ours(programs: dict[str, Any]) -> list[dict[str, Any]]:
    return programs["ours"]["samples"]


def _ratio(over: list[dict[str, Any]], under: list[dict[str, Any]], key: str) -> float:
    pairs = zip(over, under, strict=False)  # of the rounds that have both
    return median(a["whole"][key] / b["whole"][key] for a, b in pairs)


def _plain(rows: Table) -> str:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if not _is_number(cell) else cell.rjust(width)
            for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "").isdigit()


def _markdown(rows: Table) -> str:
    numeric = [n > 0 and _is_number(rows[1][n]) for n in range(len(rows[0]))]
    ruler = ["---:" if number else "---" for number in numeric]
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], ruler, *rows[1:]))


def plot(report: Report) -> str:
    """CPU seconds against the number of records, both axes logarithmic, as SVG."""
    series = {
        name: [
            (int(size), programs[name]["median"]["whole"]["cpu_s"])
            for size, programs in report["sizes"].items()
            if name in programs
        ]
        for name in COLORS
    }
    points = [point for line in series.values() for point in line]
    across = _Axis([x for x, _ in points], 70, 560)
    up = _Axis([y for _, y in points], 300, 30)
    marks = [_gridline(up, tick) for tick in up.ticks()]
    marks += [
        f'<text x="{across.at(size):.0f}" y="322" text-anchor="middle">{size:,}</text>'
        for size in sorted({x for x, _ in points})
    ]
    for name, line in series.items():
        marks += _line(name, [(across.at(x), up.at(y)) for x, y in line])
    body = "\n".join(marks)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 680 345" font-family="sans-serif" '
        'font-size="12">\n<rect width="680" height="345" fill="#fff"/>\n'
        '<text x="70" y="18">CPU seconds of the whole process</text>\n'
        f'<text x="620" y="340" text-anchor="end">records</text>\n{body}\n</svg>\n'
    )


class _Axis:
    """Logarithmic, from the power of ten below the values to the one above."""

    def __init__(self, values: list[float] | list[int], start: float, end: float) -> None:
        self._low = math.floor(math.log10(min(values)))
        self._high = max(self._low + 1, math.ceil(math.log10(max(values))))
        self._start = start
        self._end = end

    def at(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        return [10.0**power for power in range(self._low, self._high + 1)]


def _gridline(up: _Axis, tick: float) -> str:
    y = up.at(tick)
    return (
        f'<line x1="70" y1="{y:.1f}" x2="560" y2="{y:.1f}" stroke="#ddd"/>'
        f'<text x="62" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
    )


def _line(name: str, points: list[tuple[float, float]]) -> list[str]:
    if not points:
        return []
    color, path = COLORS[name], " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"/>' for x, y in points]
    x, y = points[-1]
    label = f'<text x="{x + 8:.1f}" y="{y + 4:.1f}" fill="{color}">{NAMES[name]}</text>'
    drawn = f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>'
    return [drawn, *dots, label]
