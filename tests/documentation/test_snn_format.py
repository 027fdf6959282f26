"""docs/snn-format.md: complete, and its reader of some seventy lines sends the spikes that the engines send."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from blocks import ROOT, titled
from numpy.typing import NDArray

from snnconvert.compile.network import compile_network
from snnconvert.data.bundled import dataset_for
from snnconvert.graph.checkpoint import describe, graph_tensors, load_snn, save_snn
from snnconvert.graph.kinds import FUNCTIONS, KINDS
from snnconvert.graph.schedule import SCHEDULES, Bistable, FirstSpike, Schedule, Serial, Streaming, Wait
from snnconvert.graph.types import NeuronChoice, Snn
from snnconvert.neurons import NEURONS, offered
from snnconvert.pipeline import Request, run
from snnconvert.simulate.layer_engine import LayerEngine

PAGE = (ROOT / "docs" / "snn-format.md").read_text("utf-8")
IMAGES = 12
MODELS = ("digits-cnn", "digits-resnet")


@pytest.fixture(scope="module")
def reader() -> ModuleType:
    module, code = ModuleType("read_snn"), titled("read_snn.py")
    exec(compile(code, "read_snn.py", "exec"), vars(module))
    assert "snnconvert" not in re.sub(r'\["snnconvert"\]', "", "\n".join(code.splitlines()[1:]))
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith(("import ", "from ", '"""'))]
    assert len(lines) <= 70
    return module


@pytest.fixture(scope="module")
def networks() -> dict[str, Snn]:
    """Both bundled networks, calibrated for a few steps of streaming."""
    asked = {"timesteps": 4, "schedule": "streaming", "calibration": "mse", "calibration_samples": 32, "limit": 10}
    return {name: run(Request(f"zoo:{name}", **asked)).snn for name in MODELS}


@pytest.fixture(scope="module")
def images() -> NDArray[np.float32]:
    stored = np.load(dataset_for(MODELS[0])[1])
    return np.asarray(stored["x"][:IMAGES] / 16.0, np.float32).reshape(IMAGES, 1, 8, 8)


def schedules(depth: int) -> dict[str, Schedule]:
    """One of each sort, on a network of this depth."""
    windows = {"power2": ("keep", "clear"), "uniform": ("keep", "clamp")}
    return {
        "streaming": Streaming(7, depth),
        "streaming, late": Streaming(7, depth, read_from=2),
        "wait": Wait(6 + 2 * depth, depth, wait=2),
        "first spike": FirstSpike(8 * (depth + 1), depth, time_bits=3),
        "serial": Serial(5 * (depth + 1), depth, window=5),
        **{
            f"bistable, {phases}, {residual}": Bistable(
                3 * (depth + 5), depth, window=3, phases=phases, residual=residual
            )
            for phases, residuals in windows.items()
            for residual in residuals
        },
    }


CASES = [
    *[(name, "streaming", neuron, "float32") for name in MODELS for neuron in offered()],
    *[(name, "wait", neuron, "float32") for name in MODELS for neuron in ("if", "ternary", "graded")],
    *[(name, row, "if", "float32") for name in MODELS for row in schedules(1) if row.startswith("bistable")],
    *[(name, row, "if", "float32") for name in MODELS for row in ("first spike", "serial")],
    ("digits-resnet", "streaming, late", "if", "float32"),
    *[(name, "streaming", "if", precision) for name in MODELS for precision in ("int8", "bfloat16")],
]


@pytest.mark.parametrize("case", CASES, ids=", ".join)
def test_the_reader_sends_the_engines_spikes(
    case: tuple[str, str, str, str],
    reader: ModuleType,
    networks: dict[str, Snn],
    images: NDArray[np.float32],
    tmp_path: Path,
) -> None:
    name, schedule, neuron, precision = case
    calibrated = networks[name].calibrated
    assert calibrated is not None
    chosen = NeuronChoice(neuron, NEURONS[neuron].levels)
    made = compile_network(calibrated, schedules(calibrated.schedule.depth)[schedule], chosen, precision)
    save_snn(made, tmp_path / "m.snn")
    header, tensors = reader.read(tmp_path / "m.snn")
    outputs, sent = reader.simulate(header, tensors, images)

    probed: dict[str, NDArray[np.float32]] = {}
    engine = LayerEngine(load_snn(tmp_path / "m.snn"))
    result = engine.run(torch.from_numpy(images), lambda site, frames: probed.update({site: frames.numpy()}))
    assert probed, "no spikes to compare"
    for site, frames in probed.items():
        assert np.array_equal(sent[site], frames), site
    assert sent.keys() == result.units.keys()
    assert {site: int(np.abs(frames).sum()) for site, frames in sent.items()} == {
        site: int(units.sum()) for site, units in result.units.items()
    }
    expected = result.outputs[0].flatten(2).numpy()
    if made.schedule.once:  # answers after every slot; the reader has the last one, which counts for all of them
        expected = expected[-1:] / made.schedule.window
    assert np.array_equal(outputs, expected)


def test_the_digests_are_as_described(networks: dict[str, Snn], tmp_path: Path) -> None:
    import hashlib
    import json

    save_snn(networks["digits-cnn"], tmp_path / "m.snn")
    raw = (tmp_path / "m.snn").read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    table = json.loads(raw[8:start])
    text = table.pop("__metadata__")["snnconvert"]
    header, total = json.loads(text), hashlib.sha256()
    body, ending = text.split(', "digest": "')
    assert ending == header["digest"] + '"}'
    assert hashlib.sha256((body + "}").encode()).hexdigest() == header["digest"]
    types = {"F64": "torch.float64", "F32": "torch.float32", "I8": "torch.int8"}
    for name in sorted(table):
        first, last = table[name]["data_offsets"]
        total.update(f"{name} {types[table[name]['dtype']]} {tuple(table[name]['shape'])}".encode())
        total.update(raw[start + first : start + last])
    assert total.hexdigest() == header["tensors"]


def test_every_kind_field_and_tensor_is_described() -> None:
    rows = {
        name: line
        for line in PAGE.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    for name, kind in KINDS.items():
        cells = rows[name].split("|")
        assert set(kind.fields) == set(re.findall(r"`(\w+)`", cells[3])), name
        annotated = {part for part in vars(kind).get("__annotations__", {}) if part != "groups"}
        inherited = {"weight", "bias"} if hasattr(kind, "by_rows") else set()
        inherited |= {"scales"} if hasattr(kind, "tie") else set()
        parts = {part for part in annotated | inherited if "Tensor" in str(annotation(kind, part))}
        assert parts == set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", cells[2]))), name
    for function in FUNCTIONS:
        assert f"`{function}`" in PAGE, function


def annotation(kind: type, part: str) -> object:
    """The declared type of an attribute, wherever it is inherited from."""
    return next(found for one in kind.__mro__ if (found := vars(one).get("__annotations__", {}).get(part)) is not None)


def test_every_neuron_schedule_and_key_is_described(networks: dict[str, Snn]) -> None:
    for name in NEURONS:
        assert re.search(rf"^\| `{name}` \| ", PAGE, re.MULTILINE), name
    assert {type(schedule) for schedule in schedules(1).values()} == set(SCHEDULES.values()), "the reader is not asked"
    for name, schedule in SCHEDULES.items():
        (line,) = re.findall(rf"^\| `{name}` \| .*`rounding`.*$", PAGE, re.MULTILINE)
        own = {one.name for one in fields(schedule)} - {"timesteps", "depth"}
        assert own == set(re.findall(r"`(\w+)`", line.split("|")[2])), name
    snn = networks["digits-cnn"]
    header = describe(snn)
    for key in (*header, *header["calibrated"], *header["original"], "schema", "copies", "tensors", "digest"):
        assert f"`{key}`" in PAGE, key
    assert {part.rpartition(".")[2] for part in graph_tensors(snn.graph)} <= set(re.findall(r"`(\w+)`", PAGE))
