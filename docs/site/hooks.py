"""The site's pages are the repository's: those outside docs/ join, and links keep meaning what they mean there."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
DOCS = "docs/"
OUTSIDE = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "benchmarks/*.md")
LINK = re.compile(r"\[([^\]]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that lie outside docs/."""
    for pattern in OUTSIDE:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links between files of the repository into links between pages; a broken one is an error."""
    del config
    at = page.file.src_uri
    own = at if (ROOT / at).is_file() else DOCS + at

    def moved(found: re.Match[str]) -> str:
        text, target, anchor = found.groups(default="")
        there = posixpath.normpath(posixpath.join(posixpath.dirname(own), target))
        if not (ROOT / there).exists():
            raise PluginError(f"{own}: the link to {target} leads nowhere")
        on_site = there.removeprefix(DOCS)
        if files.get_file_from_path(on_site) is None:  # source code, for instance: read in the repository
            return f"{text} (`{there}`)" if text.strip("`") != there else text
        return f"[{text}]({posixpath.relpath(on_site, posixpath.dirname(at) or '.')}{anchor})"

    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(moved, part) for part in parts)
