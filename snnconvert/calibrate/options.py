"""The options of each calibration method, each stated once: name, default, range and help."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from snnconvert.options import option

_on_the_command_line = partial(option, commands=("convert",), panel="Calibration")
_granularity = partial(
    _on_the_command_line, help="One threshold per channel or per layer.", choices=("channel", "layer"), usual=""
)
_initial = partial(option, help="Membrane potential at t = 0 as a fraction of the threshold.", least=0, most=1)
_percentile = partial(
    _on_the_command_line,
    help="Share of the activations below a threshold (percentile, robust-norm).",
    above=0,
    most=100,
)
_headroom = partial(
    _on_the_command_line,
    0.0,
    "No threshold is lower than what lets the neuron follow this many times the largest calibration activation "
    "(reconstruct, mse, windows). With 1 nothing that the calibration images cause is cut off; more makes room for "
    "images that go further, and costs early answers.",
    least=0,
    usual="0",
)


# runs of up to so many frames have all rows, longer ones one of so many
ALL_UP_TO, FEWEST = 8, 4


@dataclass(frozen=True)
class RateNorm:
    """Of `--calibration rnl`."""

    granularity: str = _granularity("channel")
    lambda_: float | None = option(None, "Weight of Omega; 1 / (3 T) without it.", above=0)
    p: float | None = option(None, "A fixed p instead of the search.", above=0, most=1)


@dataclass(frozen=True)
class Percentile:
    """Of `--calibration percentile`."""

    percentile: float = _percentile(99.9)
    granularity: str = _granularity("channel")
    initial: float = _initial(0.5)


@dataclass(frozen=True)
class RobustNorm(Percentile):
    """Of `--calibration robust-norm`: the published settings."""

    granularity: str = _granularity("layer")
    initial: float = _initial(0.0)


@dataclass(frozen=True)
class SquaredError:
    """Of `--calibration mse`."""

    initial: float | None = _initial(None)
    headroom: float = _headroom()


@dataclass(frozen=True)
class Reconstruct:
    """Of `--calibration reconstruct`."""

    weights: bool = option(True, "Solve for weights and biases; otherwise for thresholds and bias corrections only.")
    thresholds: bool = option(True, "Search for thresholds and membrane starts; otherwise they stay those of mse.")
    rounds: int = option(2, "Corrections of the weights by what the rates lack.", least=0)
    held_out: float = option(0.2, "Share of the images on which every step has to prove itself.", least=0, most=0.9)
    rows: int = option(
        32_768,
        "Output positions, all images together, on which thresholds are tried and operators solved (these on eight for "
        "each input at least); a quarter of them for more than 8 steps.",
        least=1,
    )
    memory: float = option(
        2.0,
        "GiB for what later layers read, the rest of which is kept in temporary files, and up to half as much for the "
        "currents on which thresholds are tried; of a large network fewer positions are used.",
        above=0,
    )
    judged: bool = option(True, "Keep a bias correction only where the error falls; otherwise always.")
    rate_norm: bool = option(
        False,
        "Also try the bounds p * M of the Rate Norm Layer with the best p by its objective, channel by channel through "
        "the real neuron (measured, they gain nothing).",
    )
    headroom: float = _headroom()
    read_out: bool = option(True, "Choose from which frame on the read-out sums, unless the schedule says so.")
    read_at: tuple[int, ...] = option(
        (),
        "Numbers of frames after which the network is to be right as well as after the last; all of them have the same "
        "weight in every least squares, search and judgement.",
        least=1,
    )

    def rows_for(self, frames: int, *, solved: bool = True) -> int:
        """Positions for a run of so many frames, on which weights are solved or thresholds and biases alone are found.

        With 8,192 as with 32,768 networks agree at T = 16 and 32 (constants.md), at T = 8 they lose (RESULTS.md).
        """
        short = min((*self.read_at, frames)) <= ALL_UP_TO
        return self.rows if short and solved else max(self.rows // FEWEST, 1)


@dataclass(frozen=True)
class FirstSpikeWindows:
    """Of `--calibration first-spike`."""

    zeta: float = _on_the_command_line(
        0.5, "Windows of time to first spike are (1 + zeta) times the largest activation (first-spike).", least=0
    )


@dataclass(frozen=True)
class Windows:
    """Of `--calibration windows`."""

    headroom: float = _headroom()


@dataclass(frozen=True)
class LocalThresholdBalancing:
    """Of `--calibration local-threshold-balancing`."""

    passes: int = option(16, "How often all images are gone through, in batches of 64.", least=1)
    initial: float = _initial(0.5)


@dataclass(frozen=True)
class SnnCalibrationLight:
    """Of `--calibration snn-calibration-light`."""

    granularity: str = _granularity("layer")
