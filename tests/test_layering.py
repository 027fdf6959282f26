"""Imports between packages point one way; the list is the one in ARCHITECTURE.md."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import snnconvert

ROOT = Path(snnconvert.__file__).parent
ARCHITECTURE = (ROOT.parent / "ARCHITECTURE.md").read_text("utf-8")
# the one indented line of the form  a < b < c; it may be broken in two
STATED = re.search(r"^    (\w+(?:\s*<\s*[\w.]+)+)", ARCHITECTURE, re.MULTILINE)
assert STATED is not None
ORDER = [*re.findall(r"[\w.]+", STATED[1]), "__init__"]


def rank(module: str) -> int:
    """Position of a module (dotted, without the package's name) in ORDER."""
    best = max((name for name in ORDER if module == name or module.startswith(f"{name}.")), key=len, default=None)
    assert best is not None, f"{module} has no place in ARCHITECTURE.md's order"
    return ORDER.index(best)


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, also those that it imports only when they are needed."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("snnconvert."):
            found.add(node.module.removeprefix("snnconvert."))
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for imported in imports(path):
        assert rank(imported) <= rank(module), f"{module} imports {imported}, which stands above it"


def test_torch_is_not_needed_for_help() -> None:
    """`snnconvert --help` has to be fast: neither the package nor the command line imports torch."""
    import subprocess
    import sys

    code = (
        "import sys; sys.argv = ['snnconvert', '--help']\n"
        "from snnconvert.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'numpy', 'altair'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_every_public_name_exists() -> None:
    for name in snnconvert.__all__:
        assert getattr(snnconvert, name) is not None
        assert name in snnconvert._HOMES or name in vars(snnconvert)
    assert set(dir(snnconvert)) == set(snnconvert.__all__)
