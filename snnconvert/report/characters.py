"""The curve in characters, for a terminal."""

from __future__ import annotations

import math

from snnconvert.report.section import Document


def plot(document: Document, *, width: int = 64, ascii_only: bool = False) -> list[str]:
    """The accuracy (or agreement) curve as lines of text, with values on both axes; empty without values.

    Args:
        width: columns of the plot, axis labels excluded.
        ascii_only: draw with ASCII characters.
    """
    curve, basis = document["fit_curve"], document["milestones"]["basis"]
    times, values = curve["timesteps"], curve[basis]
    known = [value for value in values if value is not None]
    if not known:
        return []
    ann = document["ann"]["accuracy"] if basis == "accuracy" else None
    low = min(10 * int(min(known) // 10), 90)
    high = min(100, 10 * math.ceil(max([*known, ann or 0.0, low + 10.0]) / 10))
    step = next(size for size in (1, 2, 5, 10) if (high - low) / size <= 10)
    height = (high - low) // step + 1
    # One column a step where there is room; else each column shows the last step that falls into it.
    spread = max(1, width // len(times))
    columns = min(width, len(times) * spread)
    shown = (
        {index * spread: value for index, value in enumerate(values)}
        if len(times) <= width
        else {column: values[(column + 1) * len(times) // columns - 1] for column in range(columns)}
    )
    point, rule, axis, corner, tick = ("*", "-", "|", "+", "-") if ascii_only else ("●", "┄", "│", "└", "─")
    grid = [[" "] * columns for _ in range(height)]
    if ann is not None and ann >= low:
        grid[round((ann - low) / step)] = [rule] * columns
    for column, value in shown.items():
        if value is not None:
            grid[round((value - low) / step)][column] = point
    lines = [f"{basis} (%)" + (f", ANN {ann:.1f} {rule * 3}" if ann is not None else "")]
    for number in reversed(range(height)):
        label = f"{low + step * number:5d}" if number % 2 == 0 or height < 9 else " " * 5
        lines.append(f"{label} {axis}{''.join(grid[number]).rstrip()}")
    lines.append(" " * 6 + corner + tick * columns)
    first, last = str(times[0]), f"{times[-1]}"
    lines.append(" " * 7 + first + f"T={last}".rjust(max(len(last) + 3, columns - len(first))))
    return lines
