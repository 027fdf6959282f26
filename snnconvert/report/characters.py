"""Accuracy against latency in characters, for a terminal."""

from __future__ import annotations

import math

from snnconvert.report import latency_chart
from snnconvert.report.section import Document
from snnconvert.report.verdict import metric
from snnconvert.report.wording import milliseconds, moment, short
from snnconvert.tasks import METRICS

_UTF, _ASCII = ("●", "·", "┄", "│", "└", "─"), ("*", ".", "-", "|", "+", "-")


def plot(document: Document, *, width: int = 64, ascii_only: bool = False) -> list[str]:
    """What the report is about at every step, and where other candidates end, as lines; empty without an answer.

    Args:
        width: columns of the plot, axis labels excluded.
        ascii_only: draw with ASCII characters.
    """
    used, curve, drawn = metric(document), document["fit_curve"], latency_chart.series(document)
    own = {t: value for t, value in zip(curve["timesteps"], curve[used.name], strict=True) if value is not None}
    if not own:
        return []
    others = {row["who"]: (row["t"], row["value"]) for name in latency_chart.OTHERS for row in drawn.get(name, [])}
    ann = document["ann"]["accuracy"] if used.name == "accuracy" else None
    last: int = max(
        document["latency"].get("asked") or 0, document["latency"]["total"], *(t for t, _ in others.values()), 1
    )
    values = [*own.values(), *(value for _, value in others.values()), *([] if ann is None else [ann])]
    low, step, height = _scale(values, share=used.unit == "%" and used.better == "higher")
    point, other, rule, axis, corner, tick = _ASCII if ascii_only else _UTF
    # One column a step or more where there is room; else each column shows the last step that falls into it.
    spread = max(1, width // last)
    columns = min(width, last * spread)

    def column(t: int) -> int:
        return (t - 1) * spread if last <= width else (t * columns - 1) // last

    grid = [[" "] * columns for _ in range(height)]
    if ann is not None:
        grid[_row(ann, low, step, height)] = [rule] * columns
    for t, value in others.values():
        grid[_row(value, low, step, height)][column(t)] = other
    for t, value in own.items():
        grid[_row(value, low, step, height)][column(t)] = point
    unit = f" ({used.unit})" if used.unit else ""
    told = [f"{point} {used.title}{unit}"]
    told += [f"{rule * 3} original {ann:.1f}"] if ann is not None else []
    # with labels the others are known by another figure than this network
    compared = "other schedules" if used.name == curve["metric"] else f"others: {METRICS[curve['metric']].title}"
    told += [f"{other} {compared}"] if others else []
    lines = ["  ".join(told)]
    if len(lines[0]) > 7 + width:
        lines = ["  ".join(told[:-1]), told[-1]]
    for number in reversed(range(height)):
        label = short(low + step * number) if number % 2 == 0 or height < 9 else ""
        lines.append(f"{label:>5} {axis}{''.join(grid[number]).rstrip()}")
    lines.append(" " * 6 + corner + tick * columns)
    end = f"T={last}" if milliseconds(document) is None else moment(document, last)
    lines.append(" " * 7 + "1" + end.rjust(max(len(end) + 1, columns - 1)))
    return lines


def _scale(values: list[float], *, share: bool) -> tuple[float, float, int]:
    """The lowest value of the axis, the step of a row, and the number of rows."""
    if share:
        least = min(10 * int(min(values) // 10), 90)
        most = min(100, 10 * math.ceil(max([*values, least + 10.0]) / 10))
        each = next(size for size in (1, 2, 5, 10) if (most - least) / size <= 10)
        return least, each, (most - least) // each + 1
    high, low = max(values), min([0.0, *values])
    size = (high - low) / 10 or 0.1
    power = 10.0 ** math.floor(math.log10(size))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= size)
    return step * math.floor(low / step), step, math.ceil(high / step) - math.floor(low / step) + 1


def _row(value: float, low: float, step: float, height: int) -> int:
    return min(height - 1, max(0, round((value - low) / step)))
