"""zoo.html: the matrix as one page that needs no network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from snnconvert.tasks import METRICS

if TYPE_CHECKING:
    from jinja2 import Template

_WIDTH, _HEIGHT = 120.0, 30.0
_LEAST = 5.0
# Spikes are those by the step from which the answer holds.
_TITLES = (
    *("original", "spiking", "drop", "same answer", "holds from step", "of steps", "spikes by then", "energy"),
    *("inputs", "seconds"),
)
# Sorts by a column, empty cells last, and hides the rows that do not hold a text.
_SCRIPT = """{
const table = document.getElementById("matrix"), heads = [...table.tHead.rows[0].cells];
// Each model is a body of its own; one without figures has a single cell for its reason.
const value = (body, column) => {
  const text = body.rows[0].cells[column]?.textContent.trim() ?? "", number = Number(text.replaceAll(",", ""));
  return text === "" ? null : Number.isNaN(number) ? text.toLowerCase() : number;
};
const order = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
  const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  const bodies = [...table.tBodies].map(body => [value(body, column), body]);
  bodies.sort(([a], [b]) => a === null || b === null ? (a === null) - (b === null) : sign * order(a, b));
  table.append(...bodies.map(([, body]) => body));
}));
document.getElementById("filter").addEventListener("input", event => {
  const wanted = event.target.value.toLowerCase();
  for (const body of table.tBodies) body.hidden = !body.textContent.toLowerCase().includes(wanted);
});
}"""


def to_html(document: Mapping[str, Any]) -> str:
    """The matrix as one page: sortable, filterable, without any network."""
    from markupsafe import Markup

    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode("ascii")
    page: str = _template().render(
        document=document, titles=_TITLES, script=Markup(_SCRIPT), digest=f"'sha256-{digest}'"
    )
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
    """The curve as a line, an only answer as a dot; the original's figure dashed, other candidates' ends as rings."""
    curve, used = figures["curve"], METRICS[figures["metric"]]
    own = [(t, value) for t, value in zip(curve["t"], curve["value"], strict=True) if value is not None]
    tried = [(row["t"], row["value"]) for row in figures["tried"] if row["value"] is not None]
    level = figures["ann_accuracy"] if used.name == "accuracy" else used.target
    values = [value for _, value in [*own, *tried]] + ([] if level is None else [level])
    if not own:
        return ""
    last = max(2, *(t for t, _ in [*own, *tried]))
    low, high = min(values), max(values)
    if used.unit == "%":  # a tenth of a point is no abyss
        low, high = (min(low, high - _LEAST), high) if used.better == "higher" else (low, max(high, low + _LEAST))
    best, worst = (high, low) if used.better == "higher" else (low, high)

    def place(t: int, value: float) -> tuple[float, float]:
        far = (best - value) / (best - worst) if best != worst else 0.0
        return round((t - 1) / (last - 1) * _WIDTH, 1), round(2 + far * (_HEIGHT - 4), 1)

    parts = []
    if level is not None:
        parts.append(f'<path class="level" d="M0 {place(1, level)[1]}H{_WIDTH:g}"/>')
    rings = sorted({place(*row) for row in tried})
    parts += [f'<circle class="tried" cx="{x}" cy="{y}" r="2"/>' for x, y in rings]
    points = [place(*row) for row in own]
    if len(points) > 1:
        parts.append(f'<polyline points="{" ".join(f"{x},{y}" for x, y in points)}"/>')
    else:
        parts.append(f'<circle class="own" cx="{points[0][0]}" cy="{points[0][1]}" r="3.2"/>')
    return (
        f'<svg viewBox="-3 0 {_WIDTH + 6:g} {_HEIGHT:g}" width="{_WIDTH:g}" height="{_HEIGHT:g}" role="img" '
        f'aria-label="{used.title} over time">{"".join(parts)}</svg>'
    )
