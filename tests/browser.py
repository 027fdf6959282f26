"""A real browser, where one is installed: a page after its scripts have run, and where things stand on it."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next((found for name in NAMES if (found := shutil.which(name))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")


def opened(page: Path, *flags: str) -> tuple[str, str]:
    """The page's document after its scripts have run, and what the browser wrote to its console."""
    assert BROWSER is not None
    quiet = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
    log = ("--enable-logging=stderr", "--v=0", f"--user-data-dir={page.parent / 'profile'}")
    command = [BROWSER, *quiet, *log, "--virtual-time-budget=8000", *flags, "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    if not done.stdout:
        pytest.skip("the browser cannot be started here")
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    return done.stdout, console


def measured(text: str, expression: str, folder: Path, width: int, height: int) -> Any:
    """What a JavaScript expression gives on the page in a frame of this size; it may use `box(selector)`.

    A window of a headless browser cannot be as narrow as a phone; a frame can.
    """
    inner, outer = folder / "inner.html", folder / "outer.html"
    policy = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
    script = f"""<script>addEventListener("load", () => setTimeout(() => {{
        const box = found => {{
            const {{left, right, top, bottom}} = document.querySelector(found).getBoundingClientRect();
            return {{left, right, top, bottom}};
        }};
        parent.postMessage(JSON.stringify({expression}), "*");
    }}, 1500));</script></body>"""
    head, tail = policy.sub("", text).rsplit("</body>", 1)  # the charts' library has one in a text, too
    inner.write_text(f"{head}{script}{tail}", "utf-8")
    outer.write_text(
        f'<body style="margin:0"><iframe src="inner.html" width="{width}" height="{height}" style="border:0"></iframe>'
        '<script>addEventListener("message", found => document.body.dataset.found = btoa(found.data))</script></body>',
        "utf-8",
    )
    dom, _ = opened(outer, f"--window-size={max(width, 800)},{height}", "--allow-file-access-from-files")
    (found,) = re.findall(r'data-found="([^"]*)"', dom)
    return json.loads(base64.b64decode(found))
