"""Blocks as Markdown for a pull request."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

from snnconvert.printable import printable
from snnconvert.report.blocks import Block, Code, Fold, Notices, On, Table, Text, shown
from snnconvert.report.section import Document
from snnconvert.report.sections import SECTIONS
from snnconvert.report.verdict import verdict
from snnconvert.report.wording import clean, spoken


def render_markdown(document: Document) -> str:
    """GitHub-flavoured Markdown: headline, warnings, key figures, milestones, layers in a fold, command line."""
    sentences = [text for section in SECTIONS.values() for text in section.sentences(document)]
    blocks = [block for section in SECTIONS.values() for block in section.blocks(document)]
    title = f"Spiking network: {document['model']['name']}"
    return page(title, verdict(document), [*sentences, *blocks], partial(spoken, document))


def page(title: str, found: str, blocks: Sequence[Block], say: Callable[[str], str] = str) -> str:
    """A heading, what was found, and the blocks that are meant for Markdown.

    `say` puts prose into the words of what it is about.
    """
    head = [f"### {escaped(title)}", "", *([f"**{escaped(found)}**"] if found else [])]
    return "\n".join(head + _lines(blocks, say)) + "\n"


def _lines(blocks: Sequence[Block], say: Callable[[str], str]) -> list[str]:
    lines: list[str] = []
    for block in shown(blocks, On.MARKDOWN):
        if isinstance(block, Text):
            lines += ["", escaped(say(block.text))]
        elif isinstance(block, Notices):
            lines += ["", *(f"- :warning: {escaped(say(text))}" for text, _ in block.rows)]
        elif isinstance(block, Table) and block.rows:
            head, *rows = (f"| {' | '.join(map(escaped, row))} |" for row in (map(say, block.head), *block.rows))
            rule = "|".join(["---", *["--:"] * (len(block.head) - 1)])
            lines += ["", head, f"|{rule}|", *rows]
        elif isinstance(block, Fold):
            lines += [
                "",
                f"<details><summary>{escaped(say(block.title))}</summary>",
                *_lines(block.blocks, say),
                "",
                "</details>",
            ]
        elif isinstance(block, Code):
            lines += ["", "```", *(printable(line).replace("```", "'''") for line in block.lines), "```"]
    return lines


def escaped(text: str) -> str:
    """Text that Markdown and HTML show as it is, on one line; mentions and links stay text."""
    text = re.sub(r"([\\`*_\[\]|~#@!$])", r"\\\1", clean(text))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # A zero-width space keeps user names and addresses from becoming mentions and links.
    return text.replace("\\@", "@\u200b").replace("://", ":\u200b//").replace("www.", "www\u200b.")
