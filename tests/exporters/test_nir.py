"""NIR: read back by nirtorch with rows for integrators, thresholds and scales, every neuron and step is the same.

The readers that need environments of their own are tried by `make readers` (benchmarks/exports.py).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import snnconvert
from snnconvert.compile.network import compile_network
from snnconvert.errors import OptionError, UnsupportedError
from snnconvert.exporters import EXPORTERS
from snnconvert.exporters.nir_file import READERS
from snnconvert.exporters.nir_graph import NirGraph, Profile, selection
from snnconvert.exporters.portable import portable
from snnconvert.exporters.task import Task
from snnconvert.exporters.verify import compare
from snnconvert.graph.dialect import Builder, sites
from snnconvert.graph.kinds import Add, Conv, Op, Pad, Relu, Slice
from snnconvert.graph.schedule import Streaming
from snnconvert.graph.types import Ann, Calibrated, NeuronChoice, Origin, SiteCalibration, Snn, Source
from snnconvert.pipeline import Request, run
from tests.exporters.networks import IMAGES
from tests.simulate.small_networks import small_snn


@pytest.fixture(scope="module", params=["digits-cnn", "digits-resnet"])
def network(request: pytest.FixtureRequest) -> Snn:
    asked = Request(
        f"zoo:{request.param}", schedule="streaming", timesteps=8, calibration="mse", calibration_samples=32, limit=20
    )
    return run(asked).snn


def test_the_primitive_form_is_the_network_itself(network: Snn, tmp_path: Path) -> None:
    made = snnconvert.export(
        network, tmp_path / "m.nir", to="nir", reader="primitive", verify=True, limit=6,
        data=network.source.location if network.source.location.startswith("zoo:") else "zoo:digits-cnn",
    )  # fmt: skip
    assert made.verified is not None
    assert made.verified.compared == 6 * 8 * sum(site_sizes(made.network))
    assert made.verified.equal
    assert made.verified.logits == 0
    assert made.verified.spikes > 0


def site_sizes(snn: Snn) -> list[int]:
    from snnconvert.graph.dialect import neurons_of

    return [int(torch.tensor(node.meta["shape"]).prod()) for node in neurons_of(snn.graph)]


def test_uneven_padding_is_read_exactly(tmp_path: Path) -> None:
    snn = small_snn(pool="none", timesteps=6)[0]
    task = Task(snn, tmp_path / "m.nir", options={"reader": "primitive", "python": None})
    written = EXPORTERS["nir"].write(task)
    found = compare(written.network, EXPORTERS["nir"].read(task, written), IMAGES)
    assert found.spikes > 500
    assert found.equal
    assert found.logits == 0


def shortcut_snn() -> Snn:
    """A block whose shortcut takes every second place and adds silent channels; its names come before the others'."""
    draw = torch.Generator().manual_seed(2)
    builder = Builder({"input": torch.rand(2, 2, 6, 6, generator=draw)})
    count = iter(range(100))

    def call(op: Op, *inputs: torch.fx.Node) -> torch.fx.Node:
        return builder.call(op, *inputs, origin=Origin(f"a{next(count)}", "test"))

    def conv(inputs: int, outputs: int, stride: int) -> Conv:
        weight = torch.randn(outputs, inputs, 3, 3, generator=draw) * 0.4
        return Conv(weight, torch.zeros(outputs), stride=(stride,) * 2, padding=(1, 1), dilation=(1, 1))

    x = call(Relu(), call(conv(2, 4, 1), builder.inputs["input"]))
    short = call(Slice(dim=3, start=0, stop=6, step=2), call(Slice(dim=2, start=0, stop=6, step=2), x))
    short = call(Pad(pads=(0, 0, 0, 0, 1, 1)), short)
    x = call(Relu(), call(Add(), call(conv(4, 6, 2), x), short))
    ann = Ann(builder.finish([call(Relu(), call(conv(6, 3, 1), x))]), (2, 6, 6), ("out",), Source("s", "", "", "test"))
    site = SiteCalibration(torch.full((1, 1, 1), 0.7), torch.full((1, 1, 1), 0.5))
    found = {node.name: site for node, _ in sites(ann.graph)}
    return compile_network(Calibrated(ann, found, Streaming(6, 3), NeuronChoice(), input_bound=2.0))


@pytest.mark.parametrize("reader", READERS)
def test_names_are_numbered_as_nodes_run(reader: str) -> None:
    """Some readers run nodes in the order of their names."""
    row = READERS[reader]
    made = NirGraph(portable(shortcut_snn(), row.form), row.profile)
    assert any(name.endswith("_moved") for name in made.nodes)
    names = sorted(made.nodes, key=lambda name: (name != "input", name == "output", name))
    for source, target in made.edges:  # those of one neuron are a loop
        assert names.index(source) < names.index(target) or source[:5] == target[:5], (source, target)
    assert {target for _, target in made.edges} == set(made.nodes) - {"input"}


@pytest.mark.parametrize("reader", READERS)
def test_a_file_and_a_loader_for_every_reader(reader: str, network: Snn, tmp_path: Path) -> None:
    import nir

    made = snnconvert.export(network, tmp_path / "m.nir", to="nir", reader=reader)
    assert [path.name for path in made.files] == ["m.nir", "load_m.py"]
    compile((tmp_path / "load_m.py").read_text(), "load_m.py", "exec")
    graph = nir.read(str(tmp_path / "m.nir"))
    kinds = {type(node).__name__ for node in graph.nodes.values()}
    neurons = {"norse": {"CubaLIF"}, "primitive": {"I", "Threshold", "Scale"}}.get(reader, {"IF"})
    assert kinds == {"Input", "Output", "Conv2d"} | neurons
    assert list(graph.nodes)[:1] == ["input"]
    if reader in ("sinabs", "snntorch", "spikingjelly"):
        thresholds = [node.v_threshold for node in graph.nodes.values() if hasattr(node, "v_threshold")]
        assert all((one == 1).all() for one in thresholds)


def test_a_loader_needs_nothing_of_this_package(network: Snn, tmp_path: Path) -> None:
    snnconvert.export(network, tmp_path / "m.nir", to="nir", reader="primitive")
    code = "import sys, load_m; load_m.load(); sys.exit('snnconvert' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_what_no_reader_holds_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no form in NIR") as caught:
        NirGraph(portable(small_snn(pool="max")[0], READERS["sinabs"].form), Profile())
    assert any("maxpool" in str(fault) for fault in caught.value.faults)
    for name, word in (("spyx", "first edge"), ("rockpool", "no convolutions"), ("lava", "is not known")):
        with pytest.raises(OptionError, match=word):
            snnconvert.export(small_snn()[0], tmp_path / "m.nir", to="nir", reader=name)
    asked = Request("zoo:digits-cnn", schedule="bistable", window=2, timesteps=10, calibration="mse", limit=20)
    with pytest.raises(UnsupportedError, match="NIR has no schedule bistable"):
        snnconvert.export(run(asked).snn, tmp_path / "m.nir", to="nir", reader="sinabs")
    assert not list(tmp_path.iterdir())


def test_a_reader_that_is_missing_is_named(network: Snn, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="norse is not installed"):
        snnconvert.export(
            network, tmp_path / "m.nir", to="nir", reader="norse", verify=True, data="zoo:digits-cnn", limit=2
        )


def test_wiring_that_selects_is_a_convolution() -> None:
    source = torch.arange(1, 4 * 6 * 6 + 1).reshape(1, 4, 6, 6).double()
    moved = torch.cat([torch.zeros(1, 2, 3, 3), source[:, [2, 0], ::2, ::2]], 1)
    found = selection(moved[0], (4, 6, 6))
    assert found is not None
    weight, stride = found
    assert torch.equal(torch.nn.functional.conv2d(source, weight.double(), stride=stride), moved)
    assert selection(source.flip(2)[0], (4, 6, 6)) is None
