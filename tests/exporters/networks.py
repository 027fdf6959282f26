"""Small spiking networks of every neuron and schedule, for exports."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import snnconvert
from snnconvert.graph.types import Snn
from tests.simulate.small_networks import SHAPE, small_snn

Case = tuple[str, str, int, str, dict[str, object]]
IMAGES = torch.rand(6, *SHAPE, generator=torch.Generator().manual_seed(5)) * 2 - 0.5
# schedule, neuron, levels, pool, further options
CASES: list[Case] = [
    ("streaming", "if", 1, "sum", {}),
    ("streaming", "if", 1, "max", {"read_from": 3}),
    ("streaming", "ternary", 1, "max", {}),
    ("streaming", "ternary-late", 1, "none", {}),
    ("streaming", "burst", 5, "sum", {}),
    ("streaming", "graded", 15, "mean", {}),
    ("wait", "if", 1, "sum", {"wait": 2}),
    ("wait", "ternary", 1, "max", {"wait": 1, "read_from": 2}),
    ("bistable", "if", 1, "sum", {"window": 3, "timesteps": 21}),
    ("bistable", "if", 1, "mean", {"window": 2, "timesteps": 20, "residual": "clamp"}),
    ("bistable", "if", 1, "none", {"window": 2, "timesteps": 20, "residual": "clear"}),
    ("bistable", "if", 1, "max", {"window": 2, "phases": "uniform", "timesteps": 20}),
]


def named(case: Case) -> str:
    """What pytest calls it."""
    return "-".join(map(str, (*case[:4], *case[4].values())))


def network_of(case: Case, **options: object) -> Snn:
    """The network of a case."""
    kind, neuron, levels, pool, more = case
    given = {"timesteps": 12, **more, **options}
    return small_snn(pool=pool, neuron=neuron, levels=levels, kind=kind, **given)[0]  # type: ignore[arg-type]


def units_in_parts() -> tuple[Snn, Tensor]:
    """A network whose last weights are one matrix times the scales of a GELU's units, in float64; and images."""
    torch.manual_seed(1)
    network, images = nn.Sequential(nn.Linear(16, 1500), nn.GELU(), nn.Linear(1500, 7)).eval(), torch.randn(32, 16)
    options = {"timesteps": 4, "neuron": "graded", "levels": 15, "schedule": "streaming"}
    return snnconvert.convert_model(network, calibration_data=images, **options).snn, images  # type: ignore[arg-type]
