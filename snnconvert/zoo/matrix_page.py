"""zoo.html: the matrix as one page that needs no network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template

_WIDTH, _HEIGHT = 96.0, 24.0
# Sorts by a column, empty cells last, and hides the rows that do not hold a text.
_SCRIPT = """{
const body = document.querySelector("#matrix tbody");
const heads = [...document.querySelectorAll("#matrix thead th")];
const value = (row, column) => {
  const text = row.children[column].textContent.trim(), number = Number(text.replaceAll(",", ""));
  return text === "" ? null : Number.isNaN(number) ? text.toLowerCase() : number;
};
const order = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
  const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  const rows = [...body.rows].map(row => [value(row, column), row]);
  rows.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : sign * order(a, b));
  body.append(...rows.map(([, row]) => row));
}));
document.getElementById("filter").addEventListener("input", event => {
  const wanted = event.target.value.toLowerCase();
  for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
});
}"""


def to_html(document: Mapping[str, Any]) -> str:
    """The matrix as one page: sortable, filterable, without any network."""
    from markupsafe import Markup

    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode("ascii")
    steps = sorted({int(t) for row in document["rows"] for t in row["accuracy_at"]})
    page: str = _template().render(document=document, steps=steps, script=Markup(_SCRIPT), digest=f"'sha256-{digest}'")
    return page + "\n"


@cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"spark": lambda row: Markup(_spark(row["figures"])), "number": _number}
    return environment.from_string(resources.files("snnconvert.zoo").joinpath("matrix.html").read_text("utf-8"))


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _spark(figures: Mapping[str, Any]) -> str:
    """The fit curve as a line from 0 to 100 percent; the original network's accuracy as a dashed one."""
    if not figures:
        return ""
    curve = figures["curve"]
    last = max(curve["t"][-1], 2)
    points = [
        f"{(t - 1) / (last - 1) * _WIDTH:.1f},{_HEIGHT * (1 - value / 100):.1f}"
        for t, value in zip(curve["t"], curve["value"], strict=True)
        if value is not None
    ]
    level = figures["ann_accuracy"] if curve["basis"] == "accuracy" else 100.0
    height = _HEIGHT * (1 - (level or 0.0) / 100)
    return (
        f'<svg viewBox="-1 -1 {_WIDTH + 2:g} {_HEIGHT + 2:g}" width="{_WIDTH:g}" height="{_HEIGHT:g}" role="img" '
        f'aria-label="{curve["basis"]} over time"><path class="level" d="M0 {height:.1f}H{_WIDTH:g}"/>'
        f'<polyline points="{" ".join(points)}"/></svg>'
    )
