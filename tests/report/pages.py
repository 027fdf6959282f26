"""A report whose texts are hostile, and what is in a page."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from make_document import make_parts

from snnconvert.report.document import assemble

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}[red]x[/red]\x1b[31m|@me ${evil}"


def hostile_document() -> dict[str, Any]:
    """A report in which every free string is hostile."""
    parts = make_parts()
    for key in ("name", "location", "sha256", "format"):
        parts["model"][key] = HOSTILE
    parts["model"]["notes"] = [HOSTILE]
    parts["tool"] = {"version": HOSTILE, "command_line": HOSTILE}
    for key in ("evaluation", "calibration"):
        parts[key] |= {"source": HOSTILE, "fingerprint": HOSTILE + key}
    parts["calibration"] |= {"method": HOSTILE, "options": {HOSTILE: HOSTILE}}
    parts["preprocessing"] = {HOSTILE: [HOSTILE]}
    parts["schedule"] |= {"kind": HOSTILE}
    parts["neuron"] = {"model": HOSTILE}
    parts["comparison"] = {"runtime": HOSTILE, "max_difference": 1.0}
    parts["timings"] = {HOSTILE: 1.0}
    parts["next_commands"] = [HOSTILE]
    parts["warnings"] = [{"code": "hostile", "text": HOSTILE, "hint": HOSTILE}]
    for index, layer in enumerate(parts["layers"]):
        layer |= {"name": f"{HOSTILE}{index}", "origin": HOSTILE}
    parts["ablation"] |= {"before": HOSTILE, "left_out": HOSTILE}
    for row in parts["ablation"]["arms"]:
        row["neurons"] = HOSTILE
    for row in parts["ablation"]["layers"]:
        row |= {"name": HOSTILE, "origin": HOSTILE}
    for row in parts["candidates"]:
        row |= {"name": HOSTILE, "reason": HOSTILE, "options": {HOSTILE: HOSTILE}}
    return assemble(parts)


class Page(HTMLParser):
    """Collects tags with their attributes, the text of scripts and the visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts.append((self.tags[-1][1], data))
        elif self.cdata_elem is None:
            self.words.append(data)


def executed(page: Page) -> list[str]:
    return [text for attributes, text in page.scripts if attributes.get("type") is None and text.strip()]
