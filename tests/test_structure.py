"""The shape of the code: sizes, circles, and facts that have one owner. ARCHITECTURE.md says why."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import snnconvert

ROOT = Path(snnconvert.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
MOST_LINES, LONGEST_FUNCTION, MOST_PARAMETERS = 400, 60, 10
# functions whose signature is another's: an operator's attributes, or a kernel's arguments
MIRRORS = ("convert/onnx_ops/", "convert/aten_ops/", "simulate/kernels/fused_kernel.py")
OPERATOR = re.compile(r"isinstance\((op|node_op|self\.op|self\.ops\[\w+\]|op_of\(\w+\)), ")
SCHEDULE = re.compile(r"schedule\.kind (==|!=|in|not in) |isinstance\((\w+\.)*schedule, ")


def functions(path: Path) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, int]]:
    """Every function of a file with the number of its parameters (self and cls do not count)."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            given = node.args
            names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            yield node, len([name for name in names if name not in ("self", "cls")])


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_fit_on_a_screen(path: Path) -> None:
    text, name = path.read_text("utf-8"), str(path.relative_to(ROOT))
    if len(text.splitlines()) > MOST_LINES:
        assert "400 lines" in (ast.get_docstring(ast.parse(text)) or ""), f"{name} does not say why it is so long"
    for function, parameters in functions(path):
        lines = (function.end_lineno or 0) - function.lineno + 1
        assert lines <= LONGEST_FUNCTION, f"{name}: {function.name} has {lines} lines"
        if not name.startswith(MIRRORS):
            assert parameters <= MOST_PARAMETERS, f"{name}: {function.name} has {parameters} parameters"


def test_the_main_path_is_one_screen() -> None:
    path = ROOT / "pipeline.py"
    (run,) = [function for function, _ in functions(path) if function.name == "run"]
    assert len(path.read_text("utf-8").splitlines()) < 100
    assert (run.end_lineno or 0) - run.lineno + 1 < 35


def test_no_module_imports_itself_by_a_detour() -> None:
    """Lazy imports count: they hide a circle, they do not break it."""
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
    arrows: dict[str, set[str]] = {}
    for module, path in names.items():
        arrows[module] = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("snnconvert."):
                base = (node.module or "").removeprefix("snnconvert.")
                inner = {f"{base}.{one.name}" for one in node.names} & set(names)
                arrows[module] |= inner or {base}
        arrows[module].discard(module)
    try:
        tuple(TopologicalSorter(arrows).static_order())
    except CycleError as error:
        pytest.fail(f"an import circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(("pattern", "owner", "most"), [(OPERATOR, "graph", 60), (SCHEDULE, "graph/schedule", 8)])
def test_kinds_and_schedules_are_asked_not_told_apart(pattern: re.Pattern[str], owner: str, most: int) -> None:
    """What is asked by class name elsewhere has to be edited for every new one."""
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in FILES
        if not str(path.relative_to(ROOT)).startswith(owner)
        for line in path.read_text("utf-8").splitlines()
        if pattern.search(line)
    ]
    assert len(found) <= most, "\n".join(found)
