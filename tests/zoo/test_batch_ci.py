"""The composite action: its steps are run here with bash, as the runner would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tiny_zoo import factory, write_folder, write_manifest

import snnconvert

ROOT = Path(__file__).parents[2]


def steps() -> list[tuple[dict[str, str], str]]:
    """(environment: input name by variable, script) of each step of action.yml; it is plain enough for this."""
    found = []
    for block in re.split(r"\n    - name: ", (ROOT / "action.yml").read_text())[1:]:
        named = dict(re.findall(r"^        (\w+): \$\{\{ inputs\.([\w-]+) \}\}$", block, re.MULTILINE))
        script = block.split("run: |\n")[1]
        found.append((named, "\n".join(line[8:] for line in script.splitlines())))
    return found


def defaults() -> dict[str, str]:
    text = (ROOT / "action.yml").read_text().split("\noutputs:")[0]
    rows = re.findall(r"^  ([\w-]+):\n    description: .*\n    default: (.*)$", text, re.MULTILINE)
    return {name: value.strip('"') for name, value in rows}


def perform(folder: Path, **inputs: str) -> tuple[int, str, dict[str, str]]:
    """Exit code and output of the steps, and what the job's files hold then."""
    given = defaults() | inputs
    bin_folder = folder / "bin"
    bin_folder.mkdir(exist_ok=True)
    command = bin_folder / "snnconvert"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m snnconvert.cli.main "$@"\n')
    command.chmod(0o755)
    files = {name: folder / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(snnconvert.__file__).parents[1]),
        "GITHUB_ACTIONS": "true",
        **{name: str(path) for name, path in files.items()},
    }
    output, code = "", 0
    for named, script in steps():
        if "INSTALL" in named and not given["install"]:
            continue
        variables = {variable: given[name] for variable, name in named.items()}
        # The shell that GitHub uses for `shell: bash`.
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            env=environment | variables, cwd=folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        output, code = output + done.stdout + done.stderr, done.returncode
        if code:
            break
    return code, output, {name: path.read_text() if path.exists() else "" for name, path in files.items()}


@pytest.mark.skipif(os.name != "posix", reason="the steps are bash")
def test_a_gate_that_must_fail_fails_the_job(tmp_path: Path) -> None:
    write_folder(tmp_path)
    write_manifest(tmp_path, factory("good"))
    assert set(defaults()) == {"manifest", "out", "arguments", "install"}
    code, output, files = perform(tmp_path, install="")
    assert code == 0, output
    assert files["GITHUB_OUTPUT"] == "exit-code=0\n"
    assert "1 of 1 models are good" in files["GITHUB_STEP_SUMMARY"]
    code, output, files = perform(tmp_path, install="", arguments="--max-spikes 0.5 --strict")
    assert code == 3
    assert files["GITHUB_OUTPUT"].endswith("exit-code=3\n")
    assert "::error title=good%3A max_spikes 0.5::spikes " in output
    (failure,) = ElementTree.parse(tmp_path / "zoo-out" / "junit.xml").getroot().iter("failure")
    assert re.search(r"good: spikes .*misses max_spikes 0.5; worst layer: \S+", str(failure.get("message")))
    write_manifest(tmp_path, factory("good", "gates = { max_spikes = 0.5 }") + '[[model]]\nsource = "none.onnx"\n')
    assert perform(tmp_path, install="")[0] == 4


def test_documented_names_are_the_ones_there_are() -> None:
    from snnconvert.gates.limits import LIMITS, NAMES

    text = (ROOT / "docs" / "ci.md").read_text()
    assert all(f"| `{name}` |" in text for name in LIMITS)
    listed = text.split("Names in conditions:")[1].split("Operators:")[0]
    assert all(re.search(rf"\b{name}\b", listed) for name in NAMES)
