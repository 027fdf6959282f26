"""What a simulation of one batch returns, whichever engine ran it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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


# called with (site name, frames of spikes with shape (frames, batch, *sample)) as each site is simulated
Probe = Callable[[str, Tensor], None]
