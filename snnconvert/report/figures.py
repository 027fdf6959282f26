"""Every figure of a report as a file of its own, drawn by the same specifications as the page."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snnconvert.errors import OptionError, OutputError
from snnconvert.files import atomic, write_atomically
from snnconvert.report.charts import charts

FORMATS = ("svg", "png")
WIDTH = 720
# of pictures inside a page: they have to be read on a telephone, too
PICTURE_WIDTH, PICTURE_DIGITS = 640, 3
# what a screen reader is told stands beside a picture, in the page
_ACCESSIBLE = re.compile(r' (?:aria-[a-z]+|role|class|pointer-events)="[^"]*"')


def formats_of(text: str | None) -> tuple[str, ...]:
    """The formats that --figures names, for instance "svg,png"; none without it.

    Raises:
        OptionError: an unknown format.
    """
    formats = () if text is None else tuple(text.split(","))
    for name in formats:
        if name not in FORMATS:
            raise OptionError(f"--figures {name!r} is not known", hint=f"choose {', '.join(FORMATS)}, or svg,png")
    return formats


def write_figures(document: Mapping[str, Any], folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write FOLDER/NAME.svg or .png for every chart of the report and return the paths.

    Raises:
        OutputError: the folder or a file cannot be written.
    """
    import vl_convert

    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, spec in charts(document).items():
            drawn = on_paper(spec)
            for form in formats:
                path = folder / f"{name}.{form}"
                with atomic(path) as temporary:
                    if form == "svg":
                        temporary.write_text(vl_convert.vegalite_to_svg(drawn), "utf-8")
                    else:
                        temporary.write_bytes(vl_convert.vegalite_to_png(drawn, scale=2))
                written.append(path)
    except OSError as error:
        raise OutputError(
            f"cannot write figures to {folder}: {error.strerror or error}", hint="choose a folder that can be written"
        ) from error
    return written


def pictures(specs: Mapping[str, Any]) -> dict[str, str]:
    """Each specification as a small SVG element for a page, in the page's ink and at most as wide as its place."""
    import vl_convert
    from scour import scour

    options = scour.sanitizeOptions()
    options.enable_viewboxing, options.strip_xml_prolog, options.shorten_ids = True, True, True
    options.digits, options.indent_type, options.newlines = PICTURE_DIGITS, "none", False
    drawn = {}
    for name, spec in specs.items():
        made = {**copy.deepcopy(dict(spec)), "width": PICTURE_WIDTH}
        if own := made.get("usermeta"):
            made["config"]["legend"]["columns"] = max(1, PICTURE_WIDTH // own["entry"])
        text = vl_convert.vegalite_to_svg(made)
        options.shorten_ids_prefix = f"{name}-"
        drawn[name] = scour.scourString(_ACCESSIBLE.sub("", text), options).strip()
    return drawn


def on_paper(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A specification of fixed width in dark ink on white, where the page would decide both."""
    made: dict[str, Any] = _with_ink(copy.deepcopy(dict(spec)))
    made["width"] = WIDTH
    made["config"]["background"] = "white"
    return made


def _with_ink(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_ink(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_ink(item) for item in value]
    return "#1b2028" if value == "currentColor" else value


def write_beside(
    document: Mapping[str, Any], page: Path, *, csv: bool = False, markdown: bool = False, figures: str | None = None
) -> list[Path]:
    """What can be had besides the page: STEM.csv, STEM-layers.csv, STEM.md, STEM-figures/; returns the paths."""
    from snnconvert.report.render_csv import curve_csv, layers_csv
    from snnconvert.report.render_markdown import render_markdown

    formats = formats_of(figures)
    texts = {}
    if csv:
        texts[page.with_suffix(".csv")] = curve_csv(document)
        texts[page.with_name(f"{page.stem}-layers.csv")] = layers_csv(document)
    if markdown:
        texts[page.with_suffix(".md")] = render_markdown(document)
    write_atomically(texts)
    drawn = write_figures(document, page.parent / f"{page.stem}-figures", formats) if formats else []
    return [*texts, *drawn]
