"""Tables: CSV and Parquet files, sound and broken."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from snnconvert.data.datasets import Dataset, load_dataset
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.errors import DataError
from snnconvert.graph.parts import Part

ROWS = "length,width,kind\n1.5,2,b\n-3e0,.5,a\n0,1,b\n"


def load(path: Path, labels: str | None = None, inputs: tuple[Part, ...] = ()) -> Dataset:
    return load_dataset(path, preprocessing=Preprocessing(), input_shape=(2,), labels=labels, inputs=inputs)


def written(folder: Path, text: str, name: str = "set.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("asked", ["kind", "2", "-1"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_features_and_labels(tmp_path: Path, asked: str, delimiter: str) -> None:
    path = written(tmp_path, "\ufeff" + ROWS.replace(",", delimiter).replace("\n", "\r\n"))
    found = load(path, asked)
    assert found.images().tolist() == [[1.5, 2], [-3, 0.5], [0, 1]]
    assert found.labels is not None
    assert found.labels.tolist() == [1, 0, 1]
    assert found.classes == ("a", "b")
    assert any("its 2 texts in order: a, b" in note for note in found.notes)


def test_usual_names_numbers_and_no_labels(tmp_path: Path) -> None:
    named = load(written(tmp_path, "a,Target,b\n1,0,2\n3,1,4\n"))
    assert named.labels is not None
    assert named.labels.tolist() == [0, 1]
    assert named.images().tolist() == [[1, 2], [3, 4]]
    bare = load(written(tmp_path, "1,2\n3,4\n"))
    assert bare.labels is None
    assert bare.images().tolist() == [[1, 2], [3, 4]]
    assert any("--label-column" in note for note in bare.notes)
    text_last = load(written(tmp_path, "1,2,x\n3,4,y\n"), "-1")  # no header, though there is a text
    assert len(text_last) == 2
    numbered = load(written(tmp_path, "0,1,kind\n1,2,x\n3,4,y\n3,4,x\n"), "kind")  # names that are numbers
    assert len(numbered) == 3
    real = load(written(tmp_path, "a,b,y\n1,2,0.25\n3,4,0.5\n"))
    assert real.labels is not None
    assert real.labels.tolist() == [0.25, 0.5]


def test_columns_by_the_names_of_inputs(tmp_path: Path) -> None:
    parts = (Part("width", (1,)), Part("length", (1,)))
    found = load(written(tmp_path, ROWS), "kind", parts)
    assert found.images().tolist() == [[2, 1.5], [0.5, -3], [1, 0]]


def test_many_rows(tmp_path: Path) -> None:
    """More than are read at once; a column that turns out to be text late is text."""
    lines = [f"{index},{index % 7},{index % 3 if index < 6000 else 'c'}" for index in range(9000)]
    found = load(written(tmp_path, "\n".join(["a,b,y", *lines])))
    assert len(found) == 9000
    assert found.classes == ("0", "1", "2", "c")
    assert np.array_equal(found.images().numpy()[:, 0], np.arange(9000))


@pytest.mark.parametrize(
    ("text", "labels", "message"),
    [
        ("", None, "holds no rows"),
        ("a,b,y\n", None, "holds no rows"),
        ("a,b,y\n1,2\n", None, "line 2 of .* has 2 cells where the first has 3"),
        ("a,b,y\n1,2,0\n1,,0\n", None, "column 'b' of .* has no finite value in line 3"),
        ("a,b,y\n1,nan,0\n", None, "column 'b' of .* has no finite value in line 2"),
        ("a,b,y\n1,2,0\n1,two,0\n", None, r"column 'b' of .* holds 'two' \(line 3\), which is no number"),
        ("a,a,y\n1,2,0\n", None, "two columns 'a'"),
        ("a,b,y\n1,2,0\n", "z", "no column 'z'; there are a, b, y"),
        ("a,b,y\n1,2,0\n", "3", "no column '3'"),
        ("y\n1\n2\n", None, "no column beside the labels"),
        ('a,b,y\n1,"2,0\n', None, "no well-formed table"),
        ("a,b,y\n1,2,1e300\n", None, "not below"),
        ("a,b,y\n1,2,\n3,4,x\n", None, "column 'y' of .* has no finite value in line 2"),
    ],
)
def test_broken_tables(tmp_path: Path, text: str, labels: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(written(tmp_path, text), labels)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    path.write_bytes(b"a,b\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="no well-formed table"):
        load(path)


def test_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "set.parquet"
    pandas.read_csv(written(tmp_path, ROWS)).to_parquet(path)
    found = load(path, "kind")
    assert found.images().tolist() == [[1.5, 2], [-3, 0.5], [0, 1]]
    assert found.classes == ("a", "b")
    content = path.read_bytes()
    for broken in (content[: len(content) // 2], b"PAR1" + content[4:-30] + bytes(30), b""):
        path.write_bytes(broken)
        with pytest.raises(DataError, match="not a readable Parquet file"):
            load(path, "kind")


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match="pyarrow, which reads it, is not installed") as caught:
        load(written(tmp_path, "", "set.parquet"))
    assert "snnconvert[parquet]" in caught.value.hint
    assert load(written(tmp_path, ROWS), "kind").classes == ("a", "b")


def test_what_has_no_columns_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "set.npy", np.zeros((3, 2), np.float32))
    with pytest.raises(DataError, match="no arrays or columns by name"):
        load(tmp_path / "set.npy", "kind")
