"""The HTML report: one file, no network, light, dark and paper."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata, resources
from typing import TYPE_CHECKING, Any

from snnconvert.errors import OutputError
from snnconvert.files import cache_folder, write_atomically
from snnconvert.report import wording
from snnconvert.report.ablation_text import ablation_text
from snnconvert.report.anytime_text import HEAD, anytime_rows, anytime_text
from snnconvert.report.charts import charts, small_layers

if TYPE_CHECKING:
    from jinja2 import Template

# Runs in the page: hands every specification to the bundled Vega-Embed. No chart is drawn by hand.
_STARTER = """{
const specs = JSON.parse(document.getElementById("chart-specs").textContent);
for (const place of document.querySelectorAll("[data-chart]")) {
  const spec = specs[place.dataset.chart];
  vegaEmbed(place, spec, {mode: "vega-lite", renderer: "svg", actions: false, tooltip: {theme: "custom"}})
    .catch(problem => { place.textContent = "chart not shown: " + problem.message; });
}
}"""


def render_html(document: Mapping[str, Any]) -> str:
    """The whole page as text. Every string of the document is escaped; scripts are pinned by a content policy."""
    specs = charts(document)
    return page(
        "template.html",
        specs,
        document=document,
        headline=wording.headline(document),
        certainty=wording.certainty(document),
        interval=wording.interval(document),
        culprit=wording.culprit(document),
        rounded=wording.precision(document["evaluation"].get("precision"), document["latency"]["total"]),
        early=wording.early_exit(document),
        neurons_worth=ablation_text(document),
        anytime=anytime_text(document),
        anytime_head=HEAD,
        anytime_rows=anytime_rows(document),
        causes=tuple(wording.CAUSES),
        crossings=wording.crossings(document),
        milestones=wording.milestones(document),
        small=[index + 1 for index in small_layers(document)],
    )


def page(template: str, specs: Mapping[str, Any], **values: Any) -> str:
    """A self-contained page from a template of this package, with the charts `specs` and their library inside it."""
    from markupsafe import Markup

    bundle = _bundle()
    text: str = compiled(template).render(
        charts=frozenset(specs),
        specs=Markup(_script_json(specs)),
        bundle=Markup(bundle),
        starter=Markup(_STARTER),
        style=Markup(_source("page.css")),
        hashes=Markup(" ".join(_hash(script) for script in (bundle, _STARTER))),
        **values,
    )
    return text + "\n"


@cache
def compiled(template: str) -> Template:
    """A template of this package; compiling it takes longer than filling it in."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(_source)
    )
    helpers = ("clean", "count", "fixed", "percent", "plural", "share", "short", "flat", "last_error", "first_spikes")
    environment.filters |= {name: getattr(wording, name) for name in helpers}
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
def _bundle() -> str:
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
