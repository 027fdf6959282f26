"""Checkpoints: what is kept, that it comes back as it was, and that nothing damaged is loaded."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from random_networks import calibrated as thresholds_of
from random_networks import images, random_ann
from safetensors import safe_open

from snnconvert.compile.balance import with_identity_sites
from snnconvert.compile.network import compile_network
from snnconvert.errors import ModelFileError
from snnconvert.graph.checkpoint import graph_rows, graph_tensors, load_snn, save_snn
from snnconvert.graph.dialect import Builder
from snnconvert.graph.kinds import ConvTranspose, Relu
from snnconvert.graph.schedule import SCHEDULES, Schedule, Streaming
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Ann, Calibrated, EarlyExit, NeuronChoice, Origin, Snn, Source
from snnconvert.neurons import NEURONS, offered
from snnconvert.simulate.layer_engine import LayerEngine

OLD = Path(__file__).parents[1] / "data" / "checkpoints"


def network(seed: int = 3, kind: str = "streaming", neuron: str = "if", timesteps: int = 40) -> Calibrated:
    original = random_ann(seed)
    depth = max(site_depths(original.graph).values())
    schedule = [made for _, made in SCHEDULES[kind].within(timesteps, depth) if isinstance(made, Schedule)][-1]
    found = thresholds_of(with_identity_sites(original, schedule), schedule, seed)
    levels = 3 if NEURONS[neuron].adjustable else NEURONS[neuron].levels
    return replace(
        found,
        neuron=NeuronChoice(neuron, levels),
        original=original,
        reach=dict.fromkeys(found.sites, 1.0 / 3),
        preprocessing={"scale": 255.0},
        label_offset=1,
        record={"method": "drawn", "options": {"seed": seed}},
    )


def equal(one: Snn, other: Snn) -> bool:
    """Whether two networks are the same in every tensor, field and edge."""
    first, second = graph_tensors(one.graph), graph_tensors(other.graph)
    return (
        graph_rows(one.graph) == graph_rows(other.graph)
        and first.keys() == second.keys()
        and all(first[name].dtype == second[name].dtype and torch.equal(first[name], second[name]) for name in first)
    )


@pytest.mark.parametrize("neuron", offered())
@pytest.mark.parametrize("kind", SCHEDULES)
def test_what_is_kept_comes_back_and_compiles_to_the_same_network(kind: str, neuron: str, tmp_path: Path) -> None:
    calibrated = network(kind=kind, neuron=neuron)
    calibrated = replace(calibrated, early_exit=EarlyExit(0.9, 1.25, 20, 95.0))
    snn = replace(compile_network(calibrated), evaluation={"correct": [1, 2]})
    save_snn(snn, tmp_path / "m.snn")
    again = load_snn(tmp_path / "m.snn")
    assert equal(again, snn)
    names = ("schedule", "neuron", "early_exit", "source", "preprocessing", "label_offset", "calibration", "evaluation")
    assert all(getattr(again, name) == getattr(snn, name) for name in names)
    assert again.early_exit == calibrated.early_exit
    kept = again.calibrated
    assert kept is not None
    assert kept.original is not None
    for name in ("schedule", "neuron", "input_bound", "reach", "early_exit", "approximate", "input_encoder", "record"):
        assert getattr(kept, name) == getattr(calibrated, name)
    for one, two in ((kept.network, calibrated.network), (kept.original, calibrated.original)):
        assert two is not None
        assert torch.equal(one.graph(images(1))[0], two.graph(images(1))[0])
    assert equal(compile_network(kept), snn)
    save_snn(again, tmp_path / "again.snn")
    assert (tmp_path / "again.snn").read_bytes() == (tmp_path / "m.snn").read_bytes()


def test_what_is_equal_is_stored_once_and_the_original_can_be_left_out(tmp_path: Path) -> None:
    """The weights of the original are those of the calibrated network here; a changed one is kept beside it."""
    calibrated = network()
    save_snn(compile_network(calibrated), tmp_path / "m.snn")
    save_snn(compile_network(calibrated), tmp_path / "without.snn", original=False)
    without = load_snn(tmp_path / "without.snn")
    assert equal(without, load_snn(tmp_path / "m.snn"))
    assert without.calibrated is not None
    assert without.calibrated.original is None
    sizes = {name: sum(t.numel() for t in stored(tmp_path / f"{name}.snn").values()) for name in ("m", "without")}
    assert sizes["m"] == sizes["without"]
    original = random_ann(3)
    for buffer in original.graph.buffers():
        buffer.add_(1.0)
    save_snn(compile_network(replace(calibrated, original=original)), tmp_path / "changed.snn")
    assert len(stored(tmp_path / "changed.snn")) > len(stored(tmp_path / "m.snn"))


def stored(path: Path) -> dict[str, torch.Tensor]:
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("kind", SCHEDULES)
def test_eight_bit_weights_are_stored_as_eight_bit_integers(kind: str, tmp_path: Path) -> None:
    snn = compile_network(network(seed=5, kind=kind), precision="int8")
    save_snn(snn, tmp_path / "m.snn")
    found = stored(tmp_path / "m.snn")
    weights = [name for name in graph_tensors(snn.graph) if name.endswith(".weight")]
    assert weights
    assert not set(weights) & set(found)
    assert all(found[f"{name}.codes"].dtype == torch.int8 for name in weights)
    again = load_snn(tmp_path / "m.snn")
    assert again.precision == "int8"
    assert equal(again, snn)
    assert again.calibrated is not None
    assert equal(compile_network(again.calibrated, precision="int8"), snn)


def test_every_changed_digit_of_the_header_is_refused(tmp_path: Path) -> None:
    path, damaged = tmp_path / "m.snn", tmp_path / "damaged.snn"
    snn = replace(
        compile_network(network()), evaluation={"share": 1 / 3, "samples": 200, "small": 1.2345678901234567e-9}
    )
    save_snn(snn, path)
    content = path.read_bytes()
    header = content[8 : 8 + int.from_bytes(content[:8], "little")].decode()
    digits = [found.start() for found in re.finditer(r"\d", header)]
    draw = random.Random(0)
    for place in draw.sample(digits, 220):
        other = draw.choice([digit for digit in "0123456789" if digit != header[place]])
        changed = header[:place] + other + header[place + 1 :]
        damaged.write_bytes(content[:8] + changed.encode() + content[8 + len(header) :])
        with pytest.raises(ModelFileError, match=re.escape(str(damaged))):
            load_snn(damaged)


@pytest.mark.parametrize("name", ["streaming", "bistable"])
def test_files_of_the_first_schema_run_as_they_did(name: str) -> None:
    """Both were written before there was another schema, and their outputs recorded with them."""
    snn = load_snn(OLD / f"schema1-{name}.snn")
    recorded = np.load(OLD / f"schema1-{name}.npz")
    outputs = LayerEngine(snn).run(torch.from_numpy(recorded["inputs"])).outputs[0]
    assert np.array_equal(outputs.numpy(), recorded["outputs"])
    assert snn.calibrated is None
    assert (snn.early_exit is not None) == (name == "streaming")
    assert "early_exit" not in snn.calibration


def test_a_file_of_the_first_schema_can_be_written_again(tmp_path: Path) -> None:
    old = load_snn(OLD / "schema1-streaming.snn")
    save_snn(old, tmp_path / "m.snn")
    again = load_snn(tmp_path / "m.snn")
    assert equal(again, old)
    assert again.early_exit == old.early_exit
    assert again.calibrated is None


def test_a_header_without_its_digest_is_refused(tmp_path: Path) -> None:
    """Otherwise cutting the digest off would be a way around it."""
    save_snn(compile_network(network()), tmp_path / "m.snn")
    with safe_open(tmp_path / "m.snn", framework="pt") as file:
        header = json.loads(file.metadata()["snnconvert"])
    from safetensors.torch import save_file

    del header["digest"]
    save_file(stored(tmp_path / "m.snn"), tmp_path / "bare.snn", metadata={"snnconvert": json.dumps(header)})
    with pytest.raises(ModelFileError, match=r"bare\.snn"):
        load_snn(tmp_path / "bare.snn")


def test_eight_bits_of_a_transposed_convolution(tmp_path: Path) -> None:
    """Its outputs are spread over two dimensions of the weights."""
    draw = torch.Generator().manual_seed(0)
    builder = Builder({"input": torch.rand(2, 4, 5, 5, generator=draw)})
    weight = torch.randn(4, 3, 3, 3, generator=draw)
    pair = dict.fromkeys(("stride", "padding", "dilation"), (1, 1))
    x = builder.call(Relu(), builder.inputs["input"], origin=Origin("relu", "Relu"))
    up = ConvTranspose(weight, torch.randn(6, generator=draw), output_padding=(0, 0), groups=2, **pair)
    x = builder.call(up, x, origin=Origin("up", "Up"))
    ann = Ann(builder.finish([x]), (4, 5, 5), ("output",), Source("up", "", "", "test"))
    schedule = Streaming(4, 1)
    snn = compile_network(thresholds_of(ann, schedule, 0), precision="int8")
    save_snn(snn, tmp_path / "m.snn")
    assert "up.weight.codes" in stored(tmp_path / "m.snn")
    assert equal(load_snn(tmp_path / "m.snn"), snn)
