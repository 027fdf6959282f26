"""The fenced blocks of README and docs: which are files, which are run, and which are not, and why."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")] + sorted((ROOT / "docs").rglob("*.md"))
FENCE = re.compile(r"^```(?P<language>\w*)(?P<rest>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
TITLE = re.compile(r'title="([^"]+)"')
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\n+\Z", re.DOTALL)
LANGUAGES = ("sh", "python")
COMMAND = re.compile(r"^\s*(?:\$ )?(?:snnconvert|python3?|pip|make|docker|git|bash) ", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: relative to the repository.
        line: of its fence, from 1.
        title: the file that it is the content of; empty where it is none.
        not_run: the reason that stands in a comment above it; empty where it is run.
    """

    page: str
    line: int
    language: str
    title: str
    text: str
    not_run: str

    @property
    def runs(self) -> bool:
        """Whether the suite runs it as a command."""
        return self.language in LANGUAGES and not self.title and not self.not_run

    def __str__(self) -> str:
        return f"{self.page}, line {self.line}"


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text("utf-8")
    found = []
    for fence in FENCE.finditer(text):
        title, reason = TITLE.search(fence["rest"]), NOT_RUN.search(text[: fence.start()])
        found.append(
            Block(
                page=page.relative_to(ROOT).as_posix(),
                line=text.count("\n", 0, fence.start()) + 1,
                language=fence["language"],
                title=title[1] if title else "",
                text=fence["text"],
                not_run=reason[1] if reason else "",
            )
        )
    return found


def titled(name: str) -> str:
    """The content of the file that a page shows under this name."""
    (found,) = [block.text for page in PAGES for block in blocks(page) if block.title == name]
    return found
