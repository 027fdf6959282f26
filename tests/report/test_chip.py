from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_document import make_parts

from snnconvert.cost.chip import Target, chip_section, cores_of, load_target, pareto, violations
from snnconvert.cost.cores import matching
from snnconvert.data.datasets import Dataset, load_dataset
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.errors import OptionError
from snnconvert.pipeline import Request, run
from snnconvert.report.document import assemble
from snnconvert.report.render_html import render_html
from snnconvert.report.sections.chip import lines as lines_of
from snnconvert.simulate.layer_engine import LayerEngine
from tests.simulate.small_networks import pictures, small_snn

ROOMY = Target("roomy", units_per_spike=99, signed_spikes=True, layers=9, destinations=9, fan_in=9999, fan_out=9999)


def test_a_roomy_chip_has_no_complaints() -> None:
    for neuron in ("if", "ternary"):
        assert violations(small_snn(neuron=neuron)[0], ROOMY) == []
    assert violations(small_snn(neuron="if-zero")[0], replace(ROOMY, reset="zero")) == []
    assert violations(small_snn()[0], Target("unknown")) == []


@pytest.mark.parametrize(
    ("limit", "options", "network", "layers"),
    [
        ("reset", {"reset": "zero"}, {}, 4),
        ("reset", {"reset": "subtract"}, {"neuron": "if-zero"}, 4),
        ("units_per_spike", {"units_per_spike": 1}, {"neuron": "burst", "levels": 5}, 4),
        ("signed_spikes", {"signed_spikes": False}, {"neuron": "ternary"}, 4),
        ("layers", {"layers": 3}, {}, 1),
        ("fan_in", {"fan_in": 53}, {}, 2),
        ("fan_out", {"fan_out": 45}, {}, 1),
        ("kernel", {"kernel": 2}, {}, 4),
        ("pools", {"pools": (1, 4)}, {}, 1),
        ("strides", {"strides": (1,)}, {}, 1),
        ("neurons_per_layer", {"neurons_per_layer": 100}, {}, 1),
        ("destinations", {"destinations": 1}, {"pool": "none"}, 0),
        ("weight_bytes_per_layer", {"weight_bytes_per_layer": 300}, {}, 1),
    ],
)
def test_every_limit_names_its_layers(
    limit: str, options: dict[str, Any], network: dict[str, Any], layers: int
) -> None:
    found = violations(small_snn(**network)[0], replace(ROOMY, **options))
    assert [row["limit"] for row in found] == [limit] * layers
    for row in found:
        assert row["layer"] == "the network" or "(test)" in row["layer"]


def test_all_violations_are_listed_at_once() -> None:
    snn, _ = small_snn(neuron="burst", levels=5)
    found = violations(snn, Target("tiny", reset="zero", units_per_spike=1, kernel=1, layers=1, fan_in=1))
    assert {row["limit"] for row in found} == {"reset", "units_per_spike", "kernel", "layers", "fan_in"}


def test_targets_are_read_and_checked(tmp_path: Path) -> None:
    assert load_target("speck2f").weight_bits == 8
    file = tmp_path / "mine.toml"
    file.write_text("fan_in = 64\npools = [1, 2]\n")
    assert load_target(str(file)) == Target("mine", fan_in=64, pools=(1, 2))
    for text, word in (
        ("fanin = 64", "unknown key 'fanin'"),
        ("fan_in = 'many'", "fan_in = 'many' is not possible"),
        ("fan_in = 0", "not possible"),
        ("pools = 2", "not possible"),
        ("reset = 'hard'", "reset = 'hard' is not known"),
        ("scale_per = 'neuron'", "scale_per = 'neuron' is not known"),
        ("fan_in =", "cannot be read"),
    ):
        file.write_text(text)
        with pytest.raises(OptionError, match=word):
            load_target(str(file))
    with pytest.raises(OptionError) as caught:
        load_target("speck3")
    assert "speck2f" in str(caught.value.hint)


def labelled(tmp_path: Path, count: int) -> tuple[Any, Dataset]:
    snn, _ = small_snn(timesteps=8)
    images = pictures(count)
    labels = LayerEngine(snn).run(images).outputs[0][-1].argmax(1).numpy()
    np.savez(tmp_path / "data.npz", x=images.numpy(), y=labels.astype(np.int64))
    plan = Preprocessing(scale=1.0, layout="NCHW")
    return snn, load_dataset(tmp_path / "data.npz", preprocessing=plan, input_shape=snn.input_shape)


def test_accuracy_within_the_bits_is_in_every_rendering(tmp_path: Path) -> None:
    snn, data = labelled(tmp_path, 12)
    section = chip_section(snn, Target("c", weight_bits=14, state_bits=26, reset="zero"), data, sweep=True)
    ends = {(row["weight_bits"], row["state_bits"]): row for row in section["runs"] if row["timesteps"] == 8}
    assert len(ends) == 17
    assert ends[14, 26]["correct"] >= 11
    assert any(row["best"] for row in section["runs"])
    document = assemble({**make_parts(timesteps=8), "chip": section})
    page = render_html(document)
    assert 'data-chart="sweep"' in page
    lines = lines_of(document["chip"])
    assert lines[0] == "c: 4 limits broken"
    assert any("14-bit weights, 26-bit membranes, T = 8" in line for line in lines)


def test_pareto_front() -> None:
    rows = [
        {"timesteps": 8, "weight_bits": 8, "state_bits": 16, "correct": 90},
        {"timesteps": 8, "weight_bits": 4, "state_bits": 16, "correct": 90},
        {"timesteps": 4, "weight_bits": 4, "state_bits": 16, "correct": 80},
        {"timesteps": 8, "weight_bits": 4, "state_bits": 32, "correct": 85},
    ]
    assert [row["best"] for row in pareto(rows)] == [False, True, True, False]


def test_a_core_holds_one_kernel_with_its_neurons() -> None:
    target = load_target("speck2f")
    snn = run(Request("zoo:digits-cnn", schedule="streaming", timesteps=4, calibration="mse", limit=4)).snn
    found = cores_of(snn, target)
    # as sinabs' own memory_summary counts them: 1 x 3 x 3 -> 16 on 8 x 8, ..., 32 x 2 x 2 -> 64, 64 -> 10
    assert [(one.kernel, one.neurons) for one in found] == [
        (256, 1024), (8192, 2048), (16384, 512), (8192, 64), (1024, 10),
    ]  # fmt: skip
    assert len({one.core for one in found} - {None}) == 5
    assert violations(snn, target) == []
    tight = replace(target, kernel_memory=(16384, 256, 8192), neuron_memory=(2048, 1024, 64))
    assert [one.core for one in cores_of(snn, tight)].count(None) == 2
    assert [row["limit"] for row in violations(snn, tight)] == ["cores", "cores"]
    residual = violations(small_snn()[0], target)
    assert [row["found"] for row in residual if row["limit"] == "kernels"] == [2]


def test_as_many_layers_as_possible_get_a_core() -> None:
    assert matching([[0, 1], [0], [1, 2]]) == {0: 1, 1: 0, 2: 2}
    assert len(matching([[0], [0], []])) == 1
