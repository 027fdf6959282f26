"""Integers: the C reference, compiled and run, repeats the simulation of a chip's integers bit for bit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import snnconvert
from snnconvert.cli.main import app
from snnconvert.compile.integers import Rescale, Unit
from snnconvert.compile.network import compile_network
from snnconvert.errors import OptionError, UnsupportedError
from snnconvert.exporters.integers import IntegerExport, Widths, compiled_reference, compiler, run_reference
from snnconvert.graph.checkpoint import save_snn
from snnconvert.graph.dialect import calls
from snnconvert.graph.flow import Flow, flows
from snnconvert.graph.kinds import Weighted
from snnconvert.graph.schedule import Bistable, FirstSpike, Schedule, Streaming, Wait
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import NeuronChoice, Snn
from snnconvert.neurons import NEURONS
from snnconvert.pipeline import Request, run
from tests.simulate.random_networks import calibrated, images, random_ann
from tests.simulate.small_networks import pictures, small_snn

needs_compiler = pytest.mark.skipif(compiler() is None, reason="there is no C compiler")


def schedules(depth: int) -> dict[str, Schedule]:
    return {
        "streaming": Streaming(9, depth),
        "read late": Streaming(9, depth, read_from=3),
        "wait": Wait(7 + 2 * depth, depth, wait=2),
        "bistable": Bistable(4 * (depth + 4), depth, window=4),
        "clamped": Bistable(3 * (depth + 3), depth, window=3, residual="clamp"),
        "uniform": Bistable(3 * (depth + 5), depth, window=3, phases="uniform", residual="clear"),
        "first spike": FirstSpike(8 * (depth + 1), depth, time_bits=3),
    }


def random_snn(seed: int, kind: str, neuron: NeuronChoice | None = None) -> Snn:
    ann = random_ann(seed)
    depth = max(site_depths(ann.graph).values())
    made = calibrated(ann, schedules(depth)[kind], seed)
    return compile_network(made if neuron is None else replace(made, neuron=neuron))


def exported(
    snn: Snn, folder: Path, widths: Widths, count: int = 2, seed: int = 0
) -> tuple[bytes, bytes, IntegerExport]:
    """What the C reference writes, and what it has to."""
    made = IntegerExport(snn, widths)
    batch = images(seed, count) if snn.source.name == "random" else pictures(count)
    made.write(folder, batch)
    return (
        run_reference(compiled_reference(folder, folder), (folder / "inputs.bin").read_bytes()),
        (folder / "golden.bin").read_bytes(),
        made,
    )


@needs_compiler
@pytest.mark.parametrize("kind", schedules(1))
@pytest.mark.parametrize("seed", range(10))
def test_c_repeats_every_membrane_and_spike(tmp_path: Path, seed: int, kind: str) -> None:
    snn = random_snn(seed, kind)
    if sums_of_sums(snn):
        with pytest.raises(UnsupportedError, match="a weighted sum of a sum, with no neurons between"):
            IntegerExport(snn, Widths())
        return
    found, golden, made = exported(snn, tmp_path, Widths(state=16 if seed % 2 else 9), seed=seed)
    assert len(golden) == 2 * (8 * snn.schedule.timesteps * neurons(made) + 8 * made.program.scores)
    assert found == golden
    assert np.frombuffer(golden, "<i4").any()


def sums_of_sums(snn: Snn) -> bool:
    flow = flows(snn.graph)
    return any(flow[node.all_input_nodes[0]] == Flow.CURRENT for node, _ in calls(snn.graph, Weighted))


def neurons(made: IntegerExport) -> int:
    return sum(site.numbers["size"] for site in made.program.sites())


@needs_compiler
@pytest.mark.parametrize("neuron", [name for name, row in NEURONS.items() if row.offered and row.equations is None])
def test_every_neuron_in_c(tmp_path: Path, neuron: str) -> None:
    snn = random_snn(4, "streaming", NeuronChoice(neuron, NEURONS[neuron].levels))
    found, golden, _ = exported(snn, tmp_path, Widths(scale_per="layer"), seed=4)
    assert found == golden


@pytest.mark.parametrize("neuron", [name for name, row in NEURONS.items() if row.offered and row.equations])
def test_neurons_that_are_trained_have_no_integers(tmp_path: Path, neuron: str) -> None:
    snn = random_snn(4, "streaming", NeuronChoice(neuron, NEURONS[neuron].levels))
    with pytest.raises(UnsupportedError, match=f"no integer form: a neuron '{neuron}'"):
        exported(snn, tmp_path, Widths(scale_per="layer"), seed=4)


@needs_compiler
@pytest.mark.parametrize("pool", ["sum", "max", "none"])
def test_groups_strides_pools_and_pads(tmp_path: Path, pool: str) -> None:
    snn, _ = small_snn(pool=pool)
    found, golden, _ = exported(snn, tmp_path, Widths(weight=12))
    assert found == golden


@needs_compiler
def test_a_changed_weight_is_seen(tmp_path: Path) -> None:
    snn, _ = small_snn()
    _, golden, _ = exported(snn, tmp_path, Widths())
    header = (tmp_path / "network.h").read_text()
    place = header.index("weight_3[]")
    digits = header.index("127", place)
    (tmp_path / "network.h").write_text(header[:digits] + "126" + header[digits + 3 :])
    assert run_reference(compiled_reference(tmp_path, tmp_path), (tmp_path / "inputs.bin").read_bytes()) != golden


@needs_compiler
def test_the_command_line_writes_runs_and_compares(tmp_path: Path) -> None:
    asked = Request("zoo:digits-cnn", neuron="if-zero", schedule="streaming", timesteps=8, limit=20)
    save_snn(run(replace(asked, calibration_samples=32)).snn, tmp_path / "m.snn")
    chip = tmp_path / "chip.toml"
    chip.write_text('reset = "zero"\nweight_bits = 6\nstate_bits = 14\n')
    words = ["export", str(tmp_path / "m.snn"), "--to", "integers", "--data", "zoo:digits-cnn", "--limit", "6"]
    done = CliRunner().invoke(app, [*words, "--target", str(chip), "--verify", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["facts"] == {"weight_bits": 6, "state_bits": 14, "input_bits": 16}
    assert found["verified"]["equal"]
    assert found["verified"]["logits"] == 0
    assert found["verified"]["compared"] == 6 * 8 * (16 * 64 + 32 * 64 + 32 * 16 + 64)
    chip.write_text('reset = "subtract"\n')
    with pytest.raises(OptionError, match="resets a membrane to subtract"):
        snnconvert.export(tmp_path / "m.snn", to="integers", target=str(chip))


def test_arrays_are_the_network_in_integers(tmp_path: Path) -> None:
    snn, _ = small_snn()
    made = IntegerExport(snn, Widths())
    made.write(tmp_path, pictures(1))
    with np.load(tmp_path / "integers.npz") as kept:
        arrays = dict(kept)
    account = json.loads((tmp_path / "integers.json").read_text())
    weights = {name: array for name, array in arrays.items() if name.endswith(".weight")}
    assert len(weights) == 5
    flow = {node.name: flow for node, flow in flows(snn.graph).items()}
    for name, array in weights.items():
        assert array.dtype == np.int8
        node = name.removesuffix(".weight")
        (source,) = next(one for one in snn.graph.graph.nodes if one.name == node).all_input_nodes
        read = account["input"]["unit"] if flow[source.name] == Flow.CONSTANT else 1.0
        own = snn.graph.get_submodule(node).get_buffer("weight").double().numpy()
        unit = arrays[f"{node}.unit"].reshape(-1, *([1] * (own.ndim - 1))) / read
        assert (np.abs(array * unit - own) <= unit * (0.5 + 1e-9)).all()
    assert account["golden"]["images"] == 1
    assert [row["name"] for row in account["golden"]["neuron_layers"]] == [site.name for site in made.program.sites()]


def test_units_are_exchanged_by_integers_alone() -> None:
    old, new = Unit(torch.tensor([0.001, 3.0]).double()), Unit(torch.tensor([0.017, 0.5]).double())
    x = torch.tensor([[-70000.0, -70000.0], [123456.0, 7.0], [0.0, 0.0]]).double()
    found = Rescale.between(old, new, 2.0**20)(x)
    assert torch.equal(found, (x * old.sizes / new.sizes + 0.5).floor())


def test_what_has_no_integer_form_is_refused() -> None:
    snn, _ = small_snn(pool="mean")
    with pytest.raises(UnsupportedError, match="has no integer form"):
        IntegerExport(snn, Widths())
    snn, _ = small_snn()
    with pytest.raises(OptionError, match="weight integers of 20 bits"):
        IntegerExport(snn, Widths(weight=20))
