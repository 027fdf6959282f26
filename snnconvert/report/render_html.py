"""The HTML report: one file, no network, light, dark and paper."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any

from snnconvert.errors import OutputError
from snnconvert.files import cache_folder, write_atomically
from snnconvert.printable import printable
from snnconvert.report.blocks import Block, On, shown
from snnconvert.report.charts import charts
from snnconvert.report.figures import pictures
from snnconvert.report.section import Document
from snnconvert.report.sections import SECTIONS
from snnconvert.report.verdict import verdict
from snnconvert.report.wording import clean, spoken

if TYPE_CHECKING:
    from jinja2 import Template

# Runs in the page: hands every specification to the bundled Vega-Embed. No chart is drawn by hand.
_STARTER = """if (typeof vegaEmbed === "undefined") {
  for (const place of document.querySelectorAll("[data-chart]"))
    place.textContent = "chart not shown: charts.js is not where it was; the .json beside this page has all numbers";
} else {
const specs = JSON.parse(document.getElementById("chart-specs").textContent);
const draw = place => {
  const spec = specs[place.dataset.chart], own = spec.usermeta, wide = place.clientWidth;
  if (own) {
    spec.config.legend.columns = Math.max(1, Math.floor(wide / own.entry));
    if (wide < 560) spec.height = own.narrow;
  }
  vegaEmbed(place, spec, {mode: "vega-lite", renderer: "svg", actions: false, tooltip: {theme: "custom"}})
    .catch(problem => { place.textContent = "chart not shown: " + problem.message; });
};
// What lies in a closed fold has no width yet.
for (const place of document.querySelectorAll("[data-chart]")) {
  const fold = place.closest("details:not([open])");
  if (fold) fold.addEventListener("toggle", () => draw(place), {once: true});
  else draw(place);
}
}"""


def render_html(document: Document, *, static: bool = False, library: str = "") -> str:
    """The whole page as text. Every string of the document is escaped; scripts are pinned by a content policy.

    `static` and `library` are those of `page`.
    """
    name = document["model"]["name"]
    return page(
        f"{name}: spiking network report",
        f"{name} as a spiking network",
        verdict(document),
        sentences=[],
        sections=[(section.title, section.blocks(document)) for section in SECTIONS.values()],
        charts=charts(document),
        say=partial(spoken, document),
        static=static,
        library=library,
    )


def page(
    title: str,
    heading: str,
    found: str,
    *,
    sentences: Sequence[Block],
    sections: Sequence[tuple[str, Sequence[Block]]],
    charts: Mapping[str, Any],
    say: Callable[[str], str] = str,
    static: bool = False,
    library: str = "",
) -> str:
    """A page of blocks, with the charts' specifications and their library inside it.

    Args:
        title: of the window.
        heading: of the page.
        found: the headline.
        sentences: what stands below the headline.
        sections: heading and blocks; those that have nothing for the page are left out.
        charts: specifications by name.
        say: puts prose into the words of what it is about; names, figures and code stay as they are.
        static: the charts are pictures, and no script is in the page.
        library: where the charts' library is, seen from the page, if it is not inside it (see `chart_library`).
    """
    from markupsafe import Markup

    bundle = "" if static or library else chart_library()
    starter = "" if static else _STARTER
    sources = ["'none'"] if static else ["'unsafe-eval'", *["'self' file:"] * bool(library)]
    sources += [_hash(script) for script in (bundle, starter) if script]
    drawn = pictures(charts) if static else dict.fromkeys(charts, "")
    text: str = compiled("page.html").render(
        title=title,
        heading=heading,
        headline=found,
        sentences=sentences,
        sections=sections,
        on=On.PAGE,
        say=say,
        charts={name: Markup(drawing) for name, drawing in drawn.items()},
        specs=Markup(_script_json(charts)),
        bundle=Markup(bundle),
        library=library,
        starter=Markup(starter),
        style=Markup(_source("page.css")),
        sources=Markup(" ".join(sources)),
    )
    return text + "\n"


@cache
def compiled(template: str) -> Template:
    """A template of this package; compiling it takes longer than filling it in."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(_source)
    )
    environment.filters |= {"clean": clean, "printable": printable, "shown": shown}
    return environment.get_template(template)


def _source(template: str) -> str:
    return resources.files("snnconvert.report").joinpath(template).read_text("utf-8")


def _script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return f"'sha256-{digest}'"


@cache
def chart_library() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, from the offline copy inside vl-convert.

    Making it takes longer than all the rest of a page, so it is kept in the cache folder, under its own digest.
    """
    import altair
    import vl_convert

    version = "_".join(altair.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    place = cache_folder() / f"vega-{metadata.version('vl-convert-python')}-{version}.js"
    with suppress(OSError, UnicodeDecodeError):
        digest, _, kept = place.read_bytes().decode("utf-8").partition("\n")
        if digest == hashlib.sha256(kept.encode("utf-8")).hexdigest():
            return kept
    text: str = vl_convert.javascript_bundle(vl_version=version)  # type: ignore[call-arg]
    # A carriage return would be normalised by the browser, and the hash would no longer fit.
    text = text.replace("\r\n", "\n").replace("</script", "<\\/script").replace("<!--", "<\\!--")
    with suppress(OutputError):
        write_atomically({place: f"{hashlib.sha256(text.encode('utf-8')).hexdigest()}\n{text}"})
    return text
