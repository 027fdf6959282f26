"""The README's picture: the first screen of the report of a bundled network, in Chromium (`make picture`)."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

MODEL = "digits-resnet"
PICTURE = Path(__file__).parents[1] / "images" / "report.webp"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
WIDTH, HEIGHT = 1280, 800


def main() -> None:
    """Convert, open the page, and keep what is seen of it without scrolling."""
    browser = next((found for name in NAMES if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit("no Chromium is installed")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        convert = [sys.executable, "-m", "snnconvert.cli.main", f"zoo:{MODEL}", "--timesteps", "32", "--quiet"]
        subprocess.run([*convert, "--output", f"{MODEL}.snn"], cwd=folder, check=True)
        flags = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}"]
        shot = folder / "shot.png"
        page = (folder / f"{MODEL}.html").as_uri()
        subprocess.run(
            [browser, *flags, "--virtual-time-budget=5000", f"--screenshot={shot}", page],
            check=True,
            capture_output=True,
        )
        PICTURE.parent.mkdir(exist_ok=True)
        with Image.open(shot) as seen:
            seen.convert("RGB").save(PICTURE, quality=82, method=6)
    print(f"{PICTURE} ({PICTURE.stat().st_size // 1000} kB)")


if __name__ == "__main__":
    main()
