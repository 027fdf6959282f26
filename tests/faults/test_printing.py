"""Names out of files take no effect where they are printed: no markup, no escape sequences, no formulas."""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import snnconvert
from snnconvert.console import Console
from snnconvert.errors import DataError
from snnconvert.printable import cell, json_text, lines, printable
from snnconvert.report.document import dumps
from tests.faults.test_names import two_layers

ROOT = Path(snnconvert.__file__).parent
HOSTILE = "[/red]\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\u200b\ud800 [bold]x[/bold] :smile:"


def shown(text: str) -> bool:
    """Whether a terminal would show every character."""
    return all(c.isprintable() or c == "\n" for c in text)


def test_a_console_takes_a_name_as_it_stands() -> None:
    from rich.table import Table

    out = io.StringIO()
    console = Console(file=out, width=200)
    console.print(HOSTILE)
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    console.print(table)
    found = out.getvalue()
    assert shown(found)
    assert found.count("[/red]") == 4
    assert found.count("[bold]x[/bold] :smile:") == 4
    found.encode("utf-8")


def test_errors_and_json_are_printable() -> None:
    error = DataError(f"no {HOSTILE}", hint=HOSTILE, causes=(HOSTILE,)).render()
    assert shown(error)
    assert error.count("[/red]") == 3
    text = dumps({"name": HOSTILE})
    assert shown(text)
    assert json.loads(text) == {"name": HOSTILE}
    text.encode("utf-8")
    assert json_text("a\u00e9") == "a\u00e9"
    assert lines("a\r\nb") == "a \nb"
    assert printable("a\nb") == "a b"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "  =1", "\r=1", '=cmd|" /C calc"!A0'])
def test_a_cell_is_no_formula(text: str) -> None:
    out = io.StringIO()
    csv.writer(out).writerow([cell(text)])
    (row,) = csv.reader(io.StringIO(out.getvalue()))
    assert row[0].startswith("'")
    assert printable(text) in row[0]


def test_numbers_and_plain_texts_stay_as_they_are() -> None:
    assert [cell(value) for value in (-1.5, 3, "conv1 (Conv)", "n-1")] == ["-1.5", "3", "conv1 (Conv)", "n-1"]


def test_everybody_prints_through_the_one_console() -> None:
    """A console of rich's own reads markup; tables and texts of files must never reach one."""
    for path in ROOT.rglob("*.py"):
        if path.name == "console.py":
            continue
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "rich.console":
                guarded = [one for one in ast.walk(tree) if isinstance(one, ast.If) and node in ast.walk(one)]
                assert any("TYPE_CHECKING" in ast.unparse(one.test) for one in guarded), path
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("TextColumn"):
                assert "markup=False" in ast.unparse(node), path
            writer = isinstance(node, ast.Call) and ast.unparse(node.func) == "csv.writer"
            assert not writer or "import cell" in path.read_text("utf-8"), path


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """The command line in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "snnconvert.cli.main", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, timeout=120, capture_output=True, check=False)


def test_a_hostile_model_on_the_command_line(tmp_path: Path) -> None:
    """From the file to the terminal, the page and the tables: one run with all that names may do."""
    two_layers(tmp_path / "net.onnx", "[/red]", node="=1+1\x1b[2J[/x]")
    found = run("net.onnx", "-T", "4", "--calibration-samples", "8", "--csv", "--markdown", cwd=tmp_path)
    assert found.returncode == 0, found.stderr.decode()
    assert shown(found.stdout.decode())
    layers = (tmp_path / "net-layers.csv").read_text("utf-8")
    origins = [row["origin"] for row in csv.DictReader(io.StringIO(layers))]
    assert origins
    assert all(origin.startswith("'=1+1") for origin in origins)
    page = (tmp_path / "net.html").read_text("utf-8")
    assert "\x1b" not in page
    checked = run("check", "net.onnx", cwd=tmp_path)
    assert checked.returncode == 0
    assert b"\x1b" not in checked.stdout


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    """Every file of a conversion may lie under a name that is no text."""
    name = os.fsdecode(b"n\xff\xfe")
    two_layers(tmp_path / f"{name}.onnx", "x")
    found = run(f"{name}.onnx", "-T", "4", "--calibration-samples", "8", "--csv", "--markdown", cwd=tmp_path)
    assert found.returncode == 0, found.stderr.decode()
    found.stdout.decode("utf-8")
    for suffix in (".snn", ".html", ".json", ".csv", ".md"):
        assert (tmp_path / f"{name}{suffix}").stat().st_size, suffix
    again = run("info", f"{name}.snn", "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr.decode()
    assert json.loads(again.stdout)["source"]["location"] == f"{name}.onnx"
    missing = run("check", f"{name}2.onnx", cwd=tmp_path)
    assert missing.returncode == 2
    missing.stderr.decode("utf-8")


def test_nobody_listens(tmp_path: Path) -> None:
    """Without stdout, without stderr, or with a reader that has gone, a command ends as if everything had been read."""
    two_layers(tmp_path / "net.onnx", "x")
    environment = {**os.environ, "PYTHONPATH": str(ROOT.parent), "OMP_NUM_THREADS": "1"}
    command = f"{sys.executable} -m snnconvert.cli.main"
    for line, code in (
        (f"{command} check net.onnx >&-", 0),
        (f"{command} check net.onnx 2>&-", 0),
        (f"{command} check absent.onnx 2>&- >&-", 2),
        (f"{command} check net.onnx > /dev/full", 2),
        (f"{command} check net.onnx | true; exit ${{PIPESTATUS[0]}}", 0),
    ):
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, timeout=120, check=False
        )
        assert done.returncode == code, (line, done.stderr.decode())
        assert b"Traceback" not in done.stderr
        assert b"Exception ignored" not in done.stderr
