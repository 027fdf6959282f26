"""Tables: CSV files, and Parquet files where pyarrow is installed. A row is a sample, one column holds the labels."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from snnconvert.budget import check_claim
from snnconvert.data.named import Arrays, Wanted
from snnconvert.data.sources import RawData, labelled
from snnconvert.errors import DataError, listed
from snnconvert.files import opened
from snnconvert.graph.parts import special

SUFFIXES = (".csv", ".tsv", ".parquet")
# what a column of labels may be called where --label-column does not say
LABEL_COLUMNS = ("label", "labels", "class", "target", "category", "y")
_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,3})?\s*", re.ASCII)
# rows that are read at once; what a table takes for each of its bytes
_ROWS, _TIMES = 4096, 8
_MISSING = ("", "na", "n/a", "nan", "null", "none", "?")


@dataclass(frozen=True)
class Table:
    """Columns by name: numbers (float64), or texts."""

    path: Path
    names: tuple[str, ...]
    columns: tuple[NDArray[Any], ...]
    first_line: int

    def raw(self, wanted: Wanted) -> RawData:
        """Features and labels as a model's input.

        Raises:
            DataError: there is no such column, or one that is no numbers.
        """
        place = self._label_place(wanted.labels)
        labels, classes, notes = (None, None, ()) if place is None else self._labels(place)
        if place is None:
            notes = (f"no labels: no column of {self.path.name} is called {', '.join(LABEL_COLUMNS)} (--label-column)",)
        left = [index for index in range(len(self.names)) if index != place]
        if special(wanted.inputs) and all(part.name in self.names for part in wanted.inputs):
            chosen = {part.name: self.names.index(part.name) for part in wanted.inputs}
            arrays = {name: self._numbers(index) for name, index in chosen.items()}
            others = [self.names[index] for index in left if index not in chosen.values()]
            notes += (f"left out the columns {listed(others, 6)}",) if others else ()
        else:
            if not left:
                raise DataError(f"{self.path} has no column beside the labels", hint="store the features as columns")
            arrays = {"x": np.stack([self._numbers(index) for index in left], 1)}
        if special(wanted.inputs):
            found = Arrays(self.path, tuple(arrays), arrays.__getitem__).raw(Wanted(wanted.inputs))
            return RawData(found.source, labels, classes, (*notes, *found.notes))
        return labelled(self.path, arrays["x"], labels, classes, notes)

    def _label_place(self, asked: str | None) -> int | None:
        """The column of labels; None where there is none."""
        if asked is None:
            lower = [name.lower() for name in self.names]
            return next((lower.index(name) for name in LABEL_COLUMNS if name in lower), None)
        if asked in self.names:
            return self.names.index(asked)
        if re.fullmatch(r"-?\d{1,6}", asked) and -len(self.names) <= int(asked) < len(self.names):
            return int(asked) % len(self.names)
        raise DataError(
            f"{self.path} has no column {asked!r}; there are {listed(list(self.names), 12)}",
            hint=f"give --label-column a name, or a number from 0 to {len(self.names) - 1} (-1: the last)",
        )

    def _labels(self, place: int) -> tuple[NDArray[Any], tuple[str, ...] | None, tuple[str, ...]]:
        """Numbers as they stand; texts as the places of their classes in alphabetical order."""
        name, column = self.names[place], self.columns[place]
        if column.dtype.kind in "bf":
            self._numbers(place)  # none is missing
            return column, None, (f"labels are the column {name!r} of {self.path.name}",)
        self._complete(place)
        classes, numbers = np.unique(column.astype(str), return_inverse=True)
        shown = listed([str(one) for one in classes], 6)
        note = f"labels are the column {name!r} of {self.path.name}, its {len(classes)} texts in order: {shown}"
        return numbers, tuple(map(str, classes)), (note,)

    def _numbers(self, place: int) -> NDArray[Any]:
        column = self.columns[place]
        if column.dtype.kind in "bf" and np.isfinite(column).all():
            return column
        if column.dtype.kind not in "bf":
            self._complete(place)
            row = next(index for index, text in enumerate(column) if not _NUMBER.fullmatch(str(text)))
            raise DataError(
                f"column {self.names[place]!r} of {self.path} holds {str(column[row])[:40]!r} (line "
                f"{self.first_line + row}), which is no number",
                hint=f"if these are the labels, add --label-column {self.names[place]!r}; features are numbers, "
                "encoded as for the model's training",
            )
        raise self._missing(place, int(np.flatnonzero(~np.isfinite(column))[0]))

    def _complete(self, place: int) -> None:
        for row, text in enumerate(self.columns[place]):
            if str(text).strip().lower() in _MISSING:
                raise self._missing(place, row)

    def _missing(self, place: int, row: int) -> DataError:
        return DataError(
            f"column {self.names[place]!r} of {self.path} has no finite value in line {self.first_line + row}",
            hint="fill or remove the row, as for the model's training",
        )


def read_table(path: Path, labels: str | None = None) -> Table:
    """Read a .csv, .tsv or .parquet file; `labels` may name one of its columns.

    Raises:
        DataError: it is none, rows differ in length, or pyarrow is needed and not there.
    """
    return _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_csv(path, labels)


def _read_csv(path: Path, labels: str | None) -> Table:
    check_claim(_TIMES * path.stat().st_size, "its rows", path)
    broken = "save it as UTF-8 text, one row a sample"
    try:
        with opened(path) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
            head = text.readline()
            delimiter = max(",;\t", key=head.count)
            text.seek(0)
            rows = (row for row in csv.reader(text, delimiter=delimiter, strict=True) if row)
            return _of_rows(path, rows, delimiter, (labels or "", *LABEL_COLUMNS))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no well-formed table: {error}", hint=broken) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", hint=broken) from error


def _of_rows(path: Path, rows: Iterator[list[str]], delimiter: str, known: tuple[str, ...]) -> Table:
    """A part of the rows at a time, so that little more than their numbers is kept; `known` are names of columns."""
    first = list(itertools.islice(rows, 2))
    headed = _has_header(first, known)
    names = tuple(name.strip() for name in first.pop(0)) if headed else ()
    if not first:
        raise DataError(f"{path} holds no rows", hint="store one row for each sample, below the names of the columns")
    names = names or tuple(map(str, range(len(first[0]))))
    doubled = [name for index, name in enumerate(names) if name in names[:index]]
    if doubled:
        raise DataError(f"{path} has two columns {doubled[0]!r}", hint="give every column a name of its own")
    line = start = 2 if headed else 1
    parts: list[list[NDArray[Any]]] = [[] for _ in names]
    rows = itertools.chain(first, rows)
    while part := list(itertools.islice(rows, _ROWS)):
        for row in part:
            if len(row) != len(names):
                raise DataError(
                    f"line {line} of {path} has {len(row)} cells where the first has {len(names)}",
                    hint=f"save the table again; its cells are separated by {delimiter!r}",
                )
            line += 1
        for found, cells in zip(parts, zip(*part, strict=True), strict=True):
            found.append(_column(cells))
    return Table(path, names, tuple(map(_joined, parts)), start)


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    if all(part.dtype.kind == "f" for part in parts):
        return np.concatenate(parts)
    texts = [[f"{value:g}" for value in part] if part.dtype.kind == "f" else list(part) for part in parts]
    found = np.empty(sum(map(len, texts)), object)
    found[:] = list(itertools.chain(*texts))
    return found


def _has_header(rows: Sequence[Sequence[str]], known: tuple[str, ...]) -> bool:
    """Whether the first row names the columns: it has a known name, no numbers, or a text over a number."""
    if not rows:
        return False
    numbers = [bool(_NUMBER.fullmatch(cell)) for cell in rows[0]]
    below = rows[1] if len(rows) > 1 else ()
    if any(cell.strip() in known or cell.strip().lower() in known for cell in rows[0] if not _NUMBER.fullmatch(cell)):
        return True
    pairs = zip(numbers, below, strict=False)
    return not any(numbers) or any(not number and _NUMBER.fullmatch(cell) for number, cell in pairs)


def _column(cells: Sequence[str]) -> NDArray[Any]:
    """Numbers where all cells are, missing ones as NaN; else texts."""
    with suppress(ValueError):
        return np.array(cells, np.float64)
    given = [cell for cell in cells if cell.strip().lower() not in _MISSING]
    if given and all(map(_NUMBER.fullmatch, given)):
        missing = [np.nan if cell.strip().lower() in _MISSING else float(cell) for cell in cells]
        return np.array(missing, np.float64)
    found = np.empty(len(cells), object)
    found[:] = list(cells)
    return found


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(
            f"{path} is a Parquet file, and pyarrow, which reads it, is not installed",
            hint="pip install 'snnconvert[parquet]', or save the table as CSV",
        ) from None
    try:
        with parquet.ParquetFile(path) as file:
            rows, columns = file.metadata.num_rows, file.metadata.num_columns
            check_claim(8.0 * rows * columns, f"{rows:,} rows of {columns:,} columns", path)
            table = file.read()
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path} is not a readable Parquet file: {reason[:300]}", hint="write it again") from error
    if not table.num_rows or not table.num_columns:
        raise DataError(f"{path} holds no rows", hint="store one row for each sample")
    kinds = pyarrow.types
    columns_read = []
    for column in table.columns:
        if kinds.is_integer(column.type) or kinds.is_floating(column.type) or kinds.is_boolean(column.type):
            columns_read.append(np.array([np.nan if one is None else one for one in column.to_pylist()], np.float64))
        else:
            texts = np.empty(len(column), object)
            texts[:] = ["" if one is None else str(one) for one in column.to_pylist()]
            columns_read.append(texts)
    return Table(path, tuple(table.column_names), tuple(columns_read), 1)
