"""The site builds without a warning, and loads nothing from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from blocks import ROOT

pytest.importorskip("mkdocs", reason="the documentation's tools are not installed (pip install '.[docs]')")
LOADED = re.compile(r"""<(?:script|img|iframe|source)[^>]*\ssrc=["']?([^"'\s>]+)|<link[^>]*\shref=["']?([^"'\s>]+)""")
LINKED = re.compile(r"""<link[^>]*\srel=["']?([\w-]+)""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_it_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(page for page in site.rglob("*.html") if page.name != "404.html")  # its addresses are a server's
    assert len(pages) > 15
    for page in pages:
        for found in LOADED.finditer(page.read_text("utf-8")):
            address = found[1] or found[2]
            relation = LINKED.match(found[0])
            if relation and relation[1] in ("canonical", "prev", "next"):
                continue
            assert not re.match(r"https?:|//", address), f"{page.name}: {found[0]}"
            target = page.parent / address.split("?")[0].split("#")[0]
            assert address.startswith("data:") or target.exists(), f"{page.name}: {address}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//", sheet.read_text("utf-8")), sheet.name


def test_every_public_name_has_its_place_on_the_page(site: Path) -> None:
    import snnconvert

    page = (site / "reference.html").read_text("utf-8")
    for name in snnconvert.__all__:
        assert re.search(rf'id="snnconvert(\.\w+)*\.{name}"', page), name
