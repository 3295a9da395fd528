# SPDX-License-Identifier: Apache-2.0
"""The figures as a picture: one panel of bars for each measure. No I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

from benchmarks.queue.report import number


@dataclass(frozen=True, slots=True)
class Panel:
    """One measure."""

    title: str
    figure: str
    note: str


PANELS = (
    Panel("Submitting in bulk", "bulk_per_s", "tasks per second, more is better"),
    Panel("Drain, 1 worker process", "drain_per_s", "tasks per second, more is better"),
    Panel("End to end", "end_to_end_per_s", "tasks per second, more is better"),
    Panel("Drain, 2 worker processes", "drain_per_s_2_workers", "tasks per second, more is better"),
    Panel("Latency at 500/s, p99", "latency_p99_ms", "milliseconds from submit to start, less is better"),
    Panel("Redis CPU", "cpu_s_per_10k", "seconds per 10,000 tasks, less is better"),
)
COLUMNS = 2
WIDTH, PANEL_WIDTH, MARGIN = 960, 450, 20
NAMES_WIDTH, BAR_WIDTH = 130, 240
ROW, BAR, HEADER = 20, 13, 50
COLOURS = {"ours": "#0b6e4f", "python": "#8fa3b8", "node": "#c08a3e", "prototype": "#d9d9d9"}
INK, PALE = "#1f2933", "#66727f"


def svg(contenders: Mapping[str, Mapping[str, Any]]) -> str:
    """One picture of all panels."""
    panel_height = HEADER + ROW * len(contenders) + MARGIN
    height = MARGIN + panel_height * -(-len(PANELS) // COLUMNS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for number_, panel in enumerate(PANELS):
        x = MARGIN + (number_ % COLUMNS) * (PANEL_WIDTH + MARGIN)
        y = MARGIN + (number_ // COLUMNS) * panel_height
        parts += _panel(panel, contenders, x=x, y=y)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel, contenders: Mapping[str, Mapping[str, Any]], *, x: int, y: int) -> list[str]:
    values = {name: figures.get(panel.figure) for name, figures in contenders.items()}
    most = max((value for value in values.values() if value is not None), default=0) or 1
    parts = [
        f'<text x="{x}" y="{y + 14}" font-size="15" font-weight="600">{escape(panel.title)}</text>',
        f'<text x="{x}" y="{y + 31}" fill="{PALE}" font-size="11">{escape(panel.note)}</text>',
    ]
    for row, (name, value) in enumerate(values.items()):
        figures = contenders[name]
        top, weight = y + HEADER + ROW * row, "600" if figures["kind"] == "ours" else "400"
        middle, width = top + BAR - 3, 0 if value is None else max(1, round(BAR_WIDTH * value / most))
        parts.append(
            f'<text x="{x + NAMES_WIDTH - 8}" y="{middle}" text-anchor="end" font-weight="{weight}">'
            f"{escape(figures['title'].partition(' (')[0])}</text>"
        )
        parts.append(
            f'<rect x="{x + NAMES_WIDTH}" y="{top}" width="{width}" height="{BAR}" fill="{COLOURS[figures["kind"]]}"/>'
        )
        label = "failed" if value is None else number(value)
        parts.append(
            f'<text x="{x + NAMES_WIDTH + width + 6}" y="{middle}" font-weight="{weight}">{escape(label)}</text>'
        )
    return parts
