"""What a simulation of one batch returns, whichever engine ran it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Simulation:
    """The outcome of one batch.

    Attributes:
        outputs: for each network output the running sum over the frames that are read, float64, shape
            (answers, batch, *sample); see `Schedule.answer_steps`.
        spikes: for each site the number of spikes sent in each step of its own emission, summed over the batch
            (int64, shape (frames * steps_per_frame,)).
        units: as `spikes`, but a spike that carries n units counts n.
    """

    outputs: tuple[Tensor, ...]
    spikes: dict[str, Tensor]
    units: dict[str, Tensor]


def joined(parts: Sequence[Simulation]) -> Simulation:
    """The outcome of all images, from that of consecutive parts of them."""
    outputs = tuple(torch.cat(pieces, 1) for pieces in zip(*(part.outputs for part in parts), strict=True))
    spikes = {name: torch.stack([part.spikes[name] for part in parts]).sum(0) for name in parts[0].spikes}
    units = {name: torch.stack([part.units[name] for part in parts]).sum(0) for name in parts[0].units}
    return Simulation(outputs, spikes, units)


def one_after_the_other(parts: Sequence[Simulation]) -> Simulation:
    """The outcome of a run, from that of its consecutive pieces; the sums of the outputs have to go on already."""
    outputs = tuple(torch.cat(pieces) for pieces in zip(*(part.outputs for part in parts), strict=True))
    spikes = {name: torch.cat([part.spikes[name] for part in parts]) for name in parts[0].spikes}
    units = {name: torch.cat([part.units[name] for part in parts]) for name in parts[0].units}
    return Simulation(outputs, spikes, units)


# called with (site name, frames of spikes with shape (frames, batch, *sample)) as each site is simulated
Probe = Callable[[str, Tensor], None]


def result_alone(name: str, by_frame: Tensor) -> None:
    """The probe of who only wants to see what a run ends with: no spikes are unpacked for it."""
    del name, by_frame
