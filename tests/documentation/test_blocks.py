"""What README and docs tell people to type: every command block is run, page by page, on files that the docs make."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from blocks import COMMAND, PAGES, ROOT, Block, blocks, titled
from warm import warm_programs

SECONDS = 300
RUN = [page for page in PAGES if any(block.runs for block in blocks(page))]
SAMPLES = "samples.py"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with `snnconvert` and `python` that run this tree's code."""
    with warm_programs(tmp_path_factory.mktemp("programs"), ROOT) as folder:
        yield folder


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_block_runs(page: Path, programs: Path, tmp_path: Path) -> None:
    environment = os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))),
        "OMP_NUM_THREADS": "1",
    }

    def run(command: list[str], block: Block | str) -> None:
        program = shutil.which(command[0], path=environment["PATH"]) or command[0]
        done = subprocess.run(
            [program, *command[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"{block} ends with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"

    run(["python", "-c", titled(SAMPLES)], SAMPLES)
    for block in blocks(page):
        if block.title:
            file = tmp_path / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text)
        elif block.runs and block.language == "sh":
            run(["bash", "-euo", "pipefail", "-c", block.text], block)
        elif block.runs:
            run(["python", "-c", block.text], block)


def test_a_block_that_fails_is_noticed(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "README.md"
    bad = Block("README.md", 1, "sh", "", "snnconvert no-such-model.onnx | cat\n", "")
    monkeypatch.setattr(sys.modules[__name__], "blocks", lambda _: [bad])
    with pytest.raises(AssertionError, match=r"README\.md, line 1 ends with 2"):
        test_every_block_runs(page, programs, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_is_a_command_is_run_or_says_why_not(page: Path) -> None:
    for block in blocks(page):
        if COMMAND.search(block.text) and not block.title and block.language != "yaml":
            assert block.runs or block.not_run, f"{block}: call it sh, or say above it <!-- not run: why -->"


def test_options_that_the_docs_name_exist() -> None:
    known = set(re.findall(r"--[a-z][a-z-]+", help_of_all_commands()))
    for page in PAGES:
        for line in page.read_text("utf-8").splitlines():
            for command in re.findall(r"snnconvert [^`\n]*", line):
                named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", command))
                assert named <= known, f"{page.name}: {named - known} in {command!r}"


def help_of_all_commands() -> str:
    """The help texts of every command, the subcommands of `zoo` included."""
    from typer.main import get_command

    from snnconvert.cli.main import app

    def options(command: object) -> list[str]:
        own = [name for one in getattr(command, "params", []) for name in (*one.opts, *one.secondary_opts)]
        return own + [name for sub in getattr(command, "commands", {}).values() for name in options(sub)]

    return " ".join(["--help", "--version", *options(get_command(app))])


def test_the_readme_fits_on_a_few_screens() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) < 120
