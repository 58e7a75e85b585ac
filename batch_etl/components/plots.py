"""Plots as SVG text, inlined in Markdown as data URIs, which Dagster's UI shows.

No library: a bar chart is one path and some words. The UI shows Markdown in its place only below
1,000 characters, and a link to it from there on (tried on 1.13.27), so a picture is as small as
that: as many columns and labels as fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import product
from urllib.parse import quote

Charts = Mapping[str, Mapping[str, int]]
"""For each column how many records have each label."""

INLINE_CHARACTERS = 1_000
"""Markdown shorter than this is shown in its place."""

_WIDTH = 400
_BARS_AT = 200
_ROW = 16
_LABEL_CHARACTERS = 20
_UNQUOTED = " ='/:;,.()!*+$@~?|"
_COLUMNS = (5, 3, 2, 1)
_LABELS = (7, 5, 4, 3, 2)


def as_markdown(charts: Charts, alternative: str) -> str:
    """The largest picture of the charts that the UI shows in its place, as Markdown."""
    text = ""
    for columns, labels in product(_COLUMNS, _LABELS):
        text = f"![{_plain(alternative)}](<{_data_uri(bars(charts, columns, labels))}>)"
        if len(text) < INLINE_CHARACTERS:
            break
    return text


def bars(charts: Charts, columns: int, labels: int) -> str:
    """Horizontal bars as SVG: a group of them for each column, the largest label first.

    Labels beyond ``labels`` are one bar, "others".
    """
    shown = [(name, counts) for name, counts in charts.items() if sum(counts.values())][:columns]
    words: list[str] = []
    path: list[str] = []
    row = 0
    for name, counts in shown:
        words.append(_words(row, _plain(name), " font-weight='700'"))
        total = sum(counts.values())
        for label, count in _largest(counts, labels):
            row += 1
            words.append(_words(row, f"{_plain(label)}: {count:,} ({count / total:.0%})"))
            width = max(1, round((_WIDTH - _BARS_AT) * count / total))
            path.append(f"M{_BARS_AT} {row * _ROW + 4}h{width}v9h-{width}z")
        row += 1
    size = f"width='{_WIDTH}' height='{row * _ROW + 4}'"
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' {size} font-size='12' font-family='Arial'>"
        f"<path fill='#fff' d='M0 0h{_WIDTH}v{row * _ROW + 4}H0z'/>"
        f"<path fill='#47b' d='{''.join(path)}'/>{''.join(words)}</svg>"
    )


def _largest(counts: Mapping[str, int], most: int) -> Sequence[tuple[str, int]]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = ordered[most:]
    if len(rest) < 2:
        return ordered
    return [*ordered[:most], (f"{len(rest)} others", sum(count for _, count in rest))]


def _words(row: int, text: str, style: str = "") -> str:
    return f"<text y='{row * _ROW + 13}'{style}>{escape(text, quote=False)}</text>"


def _short(label: str) -> str:
    if len(label) <= _LABEL_CHARACTERS:
        return label
    return f"{label[: _LABEL_CHARACTERS - 1]}…"


def _plain(text: str) -> str:
    """Without what XML forbids, and what Markdown would take for its own."""
    return "".join(c if c.isprintable() and c not in "[]\\" else " " for c in _short(text))


def _data_uri(svg: str) -> str:
    return f"data:image/svg+xml,{quote(svg, safe=_UNQUOTED)}"
