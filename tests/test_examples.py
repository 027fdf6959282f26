"""The examples in the docstrings of public names run as they stand."""

from __future__ import annotations

import doctest
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import snnconvert
from snnconvert.calibrate import METHODS
from snnconvert.neurons import NEURONS

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL


def examples() -> dict[str, doctest.DocTest]:
    """Every example of a public name or of its methods, by the name."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {}
    for name in snnconvert.__all__:
        for test in finder.find(getattr(snnconvert, name), name, module=False, globs={}):
            found[test.name] = test
    return {name: test for name, test in found.items() if test.examples}


EXAMPLES = examples()


@pytest.fixture(autouse=True)
def _restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Examples write beside themselves, and what they register is theirs alone."""
    monkeypatch.chdir(tmp_path)
    before = [(table, dict(table)) for table in (NEURONS, METHODS)]
    yield
    for table, rows in before:
        table.clear()  # type: ignore[attr-defined]
        table.update(rows)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs(name: str) -> None:
    said = list[str]()
    doctest.DocTestRunner(optionflags=FLAGS).run(EXAMPLES[name], out=said.append, clear_globs=False)
    assert not said, "".join(said)


def test_what_can_be_called_has_an_example() -> None:
    exports = {"Exported", "export"}  # have examples of their own kind
    called = [name for name in snnconvert.__all__ if not issubclass_of_errors(name) and name not in exports]
    assert set(called) <= {name.split(".")[0] for name in EXAMPLES}
    assert len(EXAMPLES) >= len(called)


def issubclass_of_errors(name: str) -> bool:
    """Whether a public name is an error, which examples of others raise."""
    found = getattr(snnconvert, name)
    return isinstance(found, type) and issubclass(found, BaseException)


def test_the_documentation_names_what_there_is() -> None:
    page = (Path(__file__).parents[1] / "docs" / "reference.md").read_text("utf-8")
    assert sorted(re.findall(r"^::: snnconvert\.(\w+)$", page, re.MULTILINE)) == sorted(snnconvert.__all__)
