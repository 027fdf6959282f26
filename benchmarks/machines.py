"""H2Learn's gains over a V100 from a model, and what they depend on: three networks, at their measured sparsity.

    python benchmarks/machines.py      # about ten minutes on two cores; writes machines.md and docs/machines.svg

Needs the data pack (SNNCONVERT_DATA). ResNet-20 is the pretrained one; the network of Fashion-MNIST, 784-200-200-10, is
trained here for three epochs; the VGG-16 (for CIFAR's pictures, dense layers 512-4096-4096-10) has random weights and
live batch statistics, since none is at hand: its sparsity is that of its thresholds, not of a trained network.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import altair as alt
import numpy as np
import torch
import vl_convert
from main_job import DATA, request
from torch import nn

from snnconvert.cost.engines import cost
from snnconvert.cost.machine_report import RATIOS, ratios
from snnconvert.cost.machines import Machine, load_machine
from snnconvert.cost.workload import LayerWork, workload
from snnconvert.data.memory import Memory
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.data.selection import images_for
from snnconvert.graph.types import Snn
from snnconvert.pipeline import Request, run
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.measure import watched_run
from snnconvert.study.backward import backward_activity
from snnconvert.study.operations import OperationCounter, operations

STEPS, BATCH, IMAGES = 8, 64, 32
OUT, PLOT = Path(__file__).parent / "machines.md", Path(__file__).parents[1] / "docs" / "machines.svg"
WINDOWS = {"half a threshold": 0.5, "two thresholds": 2.0}


def vgg16() -> nn.Module:
    """Thirteen convolutions and three dense layers, 32 x 32 pictures."""
    layers: list[nn.Module] = []
    channels = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if width == 0:
            layers.append(nn.AvgPool2d(2))
            continue
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        channels = width
    dense = [nn.Flatten(), nn.Linear(512, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 10)]
    return nn.Sequential(*layers, *dense)


def with_statistics(network: nn.Module, pictures: torch.Tensor) -> nn.Module:
    """The network in its evaluating form, its batch norms with the statistics of `pictures`."""
    torch.manual_seed(0)
    for one in network.modules():
        if isinstance(one, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(one.weight, nonlinearity="relu")
        if isinstance(one, nn.BatchNorm2d):
            one.momentum = None
    with torch.no_grad():
        network.train()(pictures)
    return network.eval()


def trained_mlp(x: torch.Tensor, y: torch.Tensor) -> nn.Module:
    """784-200-200-10, three epochs of Adam."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10)
    )
    rule = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(3):
        for chosen in torch.randperm(len(x)).split(64):  # type: ignore[no-untyped-call]
            rule.zero_grad()
            nn.functional.cross_entropy(network(x[chosen]), y[chosen]).backward()  # type: ignore[no-untyped-call]
            rule.step()
    return network.eval()


def networks() -> Iterator[tuple[str, Snn, str]]:
    """Name, converted network, and data set of each."""
    how = {"schedule": "streaming", "timesteps": STEPS, "limit": 64}
    asked = request("resnet20", calibration_samples=64, **how)
    yield "ResNet-20", run(asked).snn, str(asked.data)
    train = np.load(DATA / "cifar10_train_small.npz")["x"][:256]
    pictures = torch.from_numpy(train).float().permute(0, 3, 1, 2) / 255 if train.shape[-1] == 3 else None
    assert pictures is not None
    asked = dataclasses.replace(asked, model="VGG-16", arch=None, input_shape=(3, 32, 32), calibration="percentile")
    asked = dataclasses.replace(asked, preprocessing=Preprocessing.from_dict({"scale": "255"}))
    yield (
        "VGG-16, random weights",
        run(asked, memory=Memory(module=with_statistics(vgg16(), pictures))).snn,
        str(asked.data),
    )
    small = np.load(DATA / "fashion_mnist_train_small.npz")
    x = torch.from_numpy(small["x"].reshape(len(small["y"]), 1, 28, 28)).float() / 255
    network = trained_mlp(x, torch.from_numpy(small["y"].astype(np.int64)))
    asked = Request(
        model="MLP",
        input_shape=(1, 28, 28),
        data=str(DATA / "fashion_mnist_test.npz"),
        calibration_data=str(DATA / "fashion_mnist_train_small.npz"),
        preprocessing=Preprocessing.from_dict({"scale": "255"}),
        **how,  # type: ignore[arg-type]
    )
    yield "MLP, Fashion-MNIST", run(asked, memory=Memory(module=network)).snn, str(asked.data)


def work_of(snn: Snn, data: str) -> dict[str, list[LayerWork]]:
    """The work of one sample, by width of the surrogate's window."""
    chosen = images_for(snn, data, IMAGES)
    counter = OperationCounter(snn, IMAGES)
    images = chosen.images()
    watched_run(LayerEngine(snn), images, [counter])
    counted = operations(counter)
    assert counted is not None
    return {
        name: workload(counted, snn, backward_activity(snn, images[:8], half_width=width))
        for name, width in WINDOWS.items()
    }


def gains(machine: Machine, layers: Sequence[LayerWork], reference: Machine) -> Mapping[str, float]:
    """RATIOS of training."""
    own, other = (cost(one, layers, training=True, batch=BATCH) for one in (machine, reference))
    return ratios(own, other)


def weighted(layers: Sequence[LayerWork], what: str) -> float:
    """A share, weighted with the synapses that it concerns."""
    moving = [one for one in layers if one.moving]
    return sum(one.moving * float(getattr(one, what) or 0.0) for one in moving) / sum(one.moving for one in moving)


def with_share(layers: Sequence[LayerWork], what: str, share: float) -> list[LayerWork]:
    """The same work at another sparsity, the same in all layers."""
    changed = []
    for one in layers:
        if what == "density":
            changed.append(dataclasses.replace(one, additions=share * one.moving * one.steps * one.planes))
        else:
            kept = one.needed if what == "needed" and not one.needed else share
            changed.append(dataclasses.replace(one, **{what: kept}))  # type: ignore[arg-type]
    return changed


SHARES = {"density": "ones among spikes", "gradient": "gradients that are not zero", "needed": "inside the window"}
VARIED: dict[str, dict[str, float]] = {
    "as above": {},
    "groups of 8": {"group": 8},
    "half the arithmetic area": {"arithmetic_share": 0.15},
    "operators of 0.4 times the area": {"area_scale": 0.4},
    "500 MHz": {"clock": 5e8},
    "256 GB/s": {"memory_bandwidth": 2.56e11},
    "and 300 W of leakage, clock, control": {"other_power": 300.0},
}


def main() -> None:
    """Write the tables and the plot."""
    machine, reference = load_machine("h2learn"), load_machine("v100")
    lines = [
        "# What a chip that learns would gain: a model of H2Learn",
        "",
        f"`python benchmarks/machines.py`: streaming, T = {STEPS}, batches of {BATCH}, counted on {IMAGES} images. "
        "Times less than a V100 that computes densely at its peak, for a step of BPTT. Published (abstract of arXiv "
        "2107.11746, data sets not readable): speed-up 5.74 to 10.20, energy 5.25 to 7.12, area 7.38.",
        "",
        "| network | window | ones among spikes | gradients not zero | inside the window | "
        + " | ".join(RATIOS)
        + " | slowest |",
        "|---" * (6 + len(RATIOS)) + "|",
    ]
    works = {name: work_of(snn, data) for name, snn, data in networks()}
    for name, by_window in works.items():
        for window, layers in by_window.items():
            found = gains(machine, layers, reference)
            own = cost(machine, layers, training=True, batch=BATCH)
            memory = sum(phase.memory for phase in own.phases)
            slowest = max([(phase.compute, phase.name) for phase in own.phases] + [(memory, "memory")])[1]
            shares = [f"{100 * weighted(layers, what):.1f} %" for what in SHARES]
            figures = [f"{found[what]:.3g}" for what in RATIOS]
            lines.append("| " + " | ".join([name, window, *shares, *figures, slowest]) + " |")
    layers = works["ResNet-20"]["half a threshold"]
    lines += ["", "ResNet-20, other values for what is not published:", "", "| | " + " | ".join(RATIOS) + " |"]
    lines += ["|---" * (1 + len(RATIOS)) + "|"]
    for name, values in VARIED.items():
        found = gains(machine.with_values(**values), layers, reference)
        lines.append(f"| {name} | " + " | ".join(f"{found[what]:.3g}" for what in RATIOS) + " |")
    half = gains(machine, layers, reference.with_values(utilisation=0.5))
    lines.append("| the V100 at half its peak | " + " | ".join(f"{half[what]:.3g}" for what in RATIOS) + " |")
    OUT.write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))
    plot(machine, reference, works)


def plot(machine: Machine, reference: Machine, works: Mapping[str, Mapping[str, list[LayerWork]]]) -> None:
    """Speed-up and energy saving against each sparsity alone, the others as measured."""
    rows = []
    for name, by_window in works.items():
        layers = by_window["half a threshold"]
        for what, title in SHARES.items():
            for share in np.geomspace(0.005, 1, 24):
                found = gains(machine, with_share(layers, what, float(share)), reference)
                for ratio in RATIOS[:2]:
                    row = {"network": name, "varied": title, "share": 100 * share, "ratio": ratio}
                    rows.append({**row, "times": found[ratio]})
    axis = alt.X("share:Q", scale=alt.Scale(type="log", domain=[0.5, 100], nice=False), title="share, %")
    chart = (
        alt.Chart(alt.Data(values=rows))  # type: ignore[no-untyped-call]
        .mark_line()
        .encode(
            x=axis,
            y=alt.Y("times:Q", scale=alt.Scale(type="log"), title="times less than a V100"),
            color=alt.Color("network:N", title=None),
            strokeDash=alt.StrokeDash("ratio:N", title=None),
        )
        .properties(width=210, height=220)
        .facet(column=alt.Column("varied:N", title=None))
    )
    PLOT.write_text(vl_convert.vegalite_to_svg(chart.to_dict()), "utf-8")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    main()
