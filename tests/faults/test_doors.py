"""What is given in the place of a file, a table or a report is refused by its name and cause, and without waiting."""

from __future__ import annotations

import copy
import io
import json
import os
import random
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image

from snnconvert.console import Console
from snnconvert.convert.doors import open_model
from snnconvert.convert.weights import load_weights
from snnconvert.cost.chip import load_target
from snnconvert.cost.energy_constants import load_constants
from snnconvert.data.datasets import load_dataset
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.data.sources import FORMATS
from snnconvert.errors import DataError, OptionError, SnnConvertError, UserError
from snnconvert.files import is_regular, opened, read_json, read_toml
from snnconvert.gates.limits import Gates
from snnconvert.gates.verdicts import check_document
from snnconvert.graph.checkpoint import load_snn
from snnconvert.report.compare import compare
from snnconvert.report.document import load_report, of_reports
from snnconvert.report.render_csv import curve_csv, layers_csv
from snnconvert.report.render_markdown import render_markdown
from snnconvert.report.render_terminal import print_summary
from snnconvert.zoo.digests import Digests, external_files
from snnconvert.zoo.manifest import load_manifest
from tests.faults.documents import places
from tests.report.make_document import make_document

PLAIN = Preprocessing()


def dataset(path: Path) -> Any:
    return load_dataset(path, preprocessing=PLAIN, input_shape=None)


DOORS: dict[str, Callable[[Path], Any]] = {
    "net.onnx": lambda path: open_model(str(path)),
    "net.pt2": lambda path: open_model(str(path)),
    "net.pt": load_weights,
    "net.safetensors": load_weights,
    "net.snn": load_snn,
    "x.npz": dataset,
    "x.npy": dataset,
    "t-images-idx3-ubyte": dataset,
    "x.bin": dataset,
    "report.json": load_report,
    "zoo.toml": load_manifest,
    "preprocessing.toml": Preprocessing.from_toml,
    "chip.toml": lambda path: load_target(str(path)),
    "energy.toml": load_constants,
}


def in_time(action: Callable[[], Any], seconds: float = 20.0) -> BaseException | None:
    """What it ends with; a test that waits for a pipe would wait for ever."""
    found: list[BaseException | None] = []

    def run() -> None:
        try:
            action()
            found.append(None)
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, "it waits"
    return found[0]


@pytest.mark.parametrize("name", DOORS)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "missing"])
def test_only_files_are_read(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    error = in_time(lambda: DOORS[name](path))
    assert isinstance(error, UserError), error
    assert name in error.message
    assert not is_regular(path)


def test_files_beside_files(tmp_path: Path) -> None:
    """Labels beside images, weights beside a network, images in a folder: each may be a pipe as well."""
    (tmp_path / "t-images-idx3-ubyte").write_bytes(bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 1, 2, 3, 4]))
    os.mkfifo(tmp_path / "t-labels-idx1-ubyte")
    assert isinstance(in_time(lambda: dataset(tmp_path / "t-images-idx3-ubyte")), DataError)

    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("L", (4, 4)).save(folder / "a.png")
    os.mkfifo(folder / "b.png")
    assert len(dataset(folder)) == 1
    os.mkfifo(folder / "labels.csv")
    error = in_time(lambda: dataset(folder))
    assert isinstance(error, DataError)
    assert "labels.csv" in error.message

    tensor = onnx.TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 3], data_location=1)
    tensor.external_data.add(key="location", value="weights.bin")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    os.mkfifo(tmp_path / "weights.bin")
    error = in_time(lambda: open_model(str(tmp_path / "net.onnx")))
    assert isinstance(error, UserError)
    assert "weights.bin, which holds 'w', is a folder, a pipe or a device" in error.message
    assert external_files(tmp_path / "net.onnx") == [tmp_path / "weights.bin"]
    assert Digests(tmp_path / "store").model(tmp_path / "net.onnx")  # in time, though it names a pipe


def test_a_pipe_says_what_to_do(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p")
    with pytest.raises(OSError, match="write what comes from it to a file"):
        opened(tmp_path / "p")


# --- images and archives --------------------------------------------------------------------------

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


@pytest.mark.parametrize(
    "content", [EPS, b"<svg/>", b"FWS", b"%PDF-1.4", b"", b"\x00" * 100, b"II*\x00" + b"\xff" * 60]
)
def test_no_other_format_is_opened_as_an_image(tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", started)
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        dataset(tmp_path)


def test_every_suffix_that_is_read_has_its_format(tmp_path: Path) -> None:
    for index, suffix in enumerate(("bmp", "gif", "jpg", "png", "pgm", "ppm", "tif", "webp")):
        folder = tmp_path / suffix
        folder.mkdir()
        Image.new("L" if suffix != "ppm" else "RGB", (4, 4), index).save(folder / f"a.{suffix}")
        assert dataset(folder).images().shape[2:] == (4, 4)
    assert "EPS" not in FORMATS


@pytest.mark.parametrize("bad", [b"\xff\xfe.npy", b"../x.npy", b"/x.npy", b"x" * 300 + b".npy", b"a\x00b.npy"])
def test_members_with_bad_names(tmp_path: Path, bad: bytes) -> None:
    """Names that are no UTF-8 although the archive says so, and ways out of the archive."""
    array = io.BytesIO()
    np.save(array, np.zeros((3, 4, 4), np.uint8))
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w") as archive:
        archive.writestr("\u00e9" + "n" * (len(bad) - 2), array.getvalue())  # as long in UTF-8, which is flagged
        archive.writestr("x.npy", array.getvalue())
    content = plain.getvalue().replace("\u00e9".encode() + b"n" * (len(bad) - 2), bad)
    for name, reader in (("x.npz", dataset), ("x.pt", load_weights), ("x.pt2", lambda path: open_model(str(path)))):
        (tmp_path / name).write_bytes(content)
        error = in_time(lambda reader=reader, name=name: reader(tmp_path / name))  # type: ignore[misc]
        assert error is None or isinstance(error, UserError), error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.npz", "x.pt", "x.pt2"]


@pytest.mark.parametrize("label", ["9" * 23, "9" * 5000, "-" + "9" * 12])
def test_a_huge_label(tmp_path: Path, label: str) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text(f"file,label\na.png,{label}\n")
    with pytest.raises(DataError, match="no number of a class") as caught:
        dataset(tmp_path)
    assert len(caught.value.message) < 500
    (tmp_path / "labels.csv").write_text(f"file,label\n{'b' * 5000}.png,1\n")
    with pytest.raises(DataError, match="does not hold"):
        dataset(tmp_path)
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 4, 4), np.uint8), y=np.array([1e19]))
    with pytest.raises(DataError, match="not below 2,147,483,648"):
        dataset(tmp_path / "x.npz")


# --- texts ----------------------------------------------------------------------------------------

DEEP = {
    "brackets": "a = " + "[" * 5000 + "]" * 5000,
    "tables": "[" + ".".join(["a"] * 5000) + "]",
    "keys": ".".join(["a"] * 5000) + " = 1",
    "inline": "a = " + "{a = " * 3000 + "1" + "}" * 3000,
    "digits": "a = " + "9" * 5000,
    "bytes": "a = \udcff",
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP.keys())
@pytest.mark.parametrize("name", [name for name in DOORS if name.endswith(".toml")])
def test_toml_that_is_nested_or_long(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(OptionError, match=name):
        DOORS[name](tmp_path / name)
    with pytest.raises(ValueError):
        read_toml(tmp_path / name)


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 10**5, "9" * 5000, "NaN", "[1e999]", "[-Infinity]", "\udcff"])
def test_json_that_is_nested_or_long(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError):
        read_json(tmp_path / "report.json")
    with pytest.raises(DataError, match=r"report\.json"):
        load_report(tmp_path / "report.json")


def test_long_conditions() -> None:
    """Sums as long as a condition may be are judged, what is nested too deeply is refused."""
    for text in ("drop" + "+1" * 990 + " > 5", "drop > 5" + " and drop > 5" * 150, "not " * 25 + "drop > 5"):
        gates = Gates(fail_if=(text,))
        check_document(make_document(), gates)
    for text in (
        "(" * 180 + "drop" + ")" * 180 + " > 5",
        "not " * 400 + "drop > 5",
        "drop > 5" + "0" * 3000,
        "-" * 900 + "drop > 1",
    ):
        with pytest.raises(OptionError, match="cannot be read"):
            Gates(fail_if=(text,))


# --- reports --------------------------------------------------------------------------------------


def others(value: Any) -> list[Any]:
    """Values of the same kind that a file could hold instead."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [-1, 0, 1, 3, 0.5, 100.01, 10**6, 2**40, 2**62, 1e30, -1e308]
    if isinstance(value, str):
        return ["", "x" * 2000, "[/red]\x1b[31m", "=1", "{}", "%s"]
    if isinstance(value, list):
        return [[], value[:1], value + value, value[::-1], [None] * len(value)]
    return [{}, "x", [], 0]


def made_of(document: Any, before: Any) -> None:
    print_summary(document, Console(file=io.StringIO()))
    render_markdown(document)
    curve_csv(document)
    layers_csv(document)
    compare([("a", document), ("b", before)])
    limits = Gates(max_drop=1.0, min_accuracy=90.0, max_spikes=1e5, max_energy_ratio=1.0, min_agreement=90.0)
    check_document(document, limits, before)


def test_an_edited_report(tmp_path: Path) -> None:
    """139 trials: each is shown and judged, or refused with the file's name."""
    plain = json.loads(json.dumps(make_document()))
    draw = random.Random(5)
    ways, path = list(places(plain, most=2)), tmp_path / "report.json"
    refused = 0
    for _ in range(139):
        document, way = copy.deepcopy(plain), draw.choice(ways)
        inside = document
        for key in way[:-1]:
            inside = inside[key]
        value = draw.choice([*others(inside[way[-1]]), None, ...])
        if value is ...:
            del inside[way[-1]]
        else:
            inside[way[-1]] = value
        path.write_text(json.dumps(document))
        try:
            found = load_report(path)
            with of_reports([path]):
                made_of(found, plain)
        except SnnConvertError as error:
            refused += 1
            assert error.exit_code == 2, (way, value, error.render())
    assert 20 < refused < 139


def test_a_report_of_no_images(tmp_path: Path) -> None:
    document = json.loads(json.dumps(make_document()))
    document["evaluation"]["samples"] = 0
    (tmp_path / "report.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="no snnconvert-report") as caught:
        load_report(tmp_path / "report.json")
    assert "samples" in caught.value.causes[0]


def test_weights_of_torch_and_back(tmp_path: Path) -> None:
    """What is no pipe is read as before, also through a link."""
    torch.save({"w": torch.arange(3.0)}, tmp_path / "w.pt")
    (tmp_path / "link.pt").symlink_to("w.pt")
    assert torch.equal(load_weights(tmp_path / "link.pt")["w"], torch.arange(3.0))
