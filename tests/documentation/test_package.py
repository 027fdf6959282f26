"""What is published: the source archive is the repository, with tests, documentation and benchmarks."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from blocks import ROOT

BUILD = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
# what git alone needs
LEFT_OUT = {".gitignore"}


@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="this is no git checkout")
def test_the_source_archive_holds_every_file(tmp_path: Path) -> None:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    ours = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()} - LEFT_OUT
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        held = {name.partition("/")[2] for name in file.getnames()}
    assert not ours - held
    made = {"", "PKG-INFO", "setup.cfg"}
    others = {name for name in held - ours - made if ".egg-info" not in name and not is_folder(name)}
    assert not others, "built or private files are in the archive"


def is_folder(name: str) -> bool:
    """Whether the archive's entry is a folder of the repository."""
    return (ROOT / name).is_dir()
