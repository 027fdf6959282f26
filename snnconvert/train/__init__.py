"""Training methods: TRAINING_METHODS maps the value of `--method` to a class that changes how a network learns.

The table is light: a method's module, and torch with it, is imported when it is used. The loop (`loop.py`), the network
that learns (`student.py`) and its neurons (`neurons.py`) are the same for all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from snnconvert.plugins import named


@dataclass(frozen=True)
class TrainingMethod:
    """A row of the table.

    Attributes:
        help: what it does, in one line.
        source: where it comes from.
        place: MODULE:CLASS, below `snnconvert.train.methods`.
        options: the options of `FineTuning` that mean something to this method only, or to some methods.
        continuous: whether it trains first spikes in continuous time, too: the original network's activations.
    """

    help: str
    source: str
    place: str
    options: tuple[str, ...] = ()
    continuous: bool = False

    def load(self) -> Any:
        """The class, which is one below `train.method.Method`."""
        return named(f"snnconvert.train.methods.{self.place}")


TRAINING_METHODS = {
    "distill": TrainingMethod(
        "the original network's softened answers are learned through time, weights, thresholds and membrane starts",
        "Hinton et al. 2015; backpropagation through time, Neftci et al. 2019",
        "distill:Distill",
        options=("backward", "l1"),
        continuous=True,
    ),
    "stepwise": TrainingMethod(
        "the answer after every step learns from the original and from the last answer",
        "after Yu et al. 2025, arXiv 2501.15925",
        "stepwise:Stepwise",
        options=("l1",),
    ),
    "rnl": TrainingMethod(
        "Rate Norm Layer: weights under clipped activations, or one p for all thresholds against the frozen original",
        "Ding et al., IJCAI 2021, arXiv 2105.11654",
        "rate_norm:RateNormLayer",
        options=("rnl_stage", "omega"),
    ),
    "dsr": TrainingMethod(
        "gradients of rates, thresholds included; memory does not grow with T",
        "Meng et al., CVPR 2022, arXiv 2205.00459",
        "rates:SpikeRepresentation",
    ),
    "tandem": TrainingMethod(
        "spike counts forward, gradients of the rectified activations",
        "Wu et al. 2019, arXiv 1907.01167",
        "rates:Tandem",
    ),
    "progressive": TrainingMethod(
        "layers become spiking and are frozen one after the other, and those behind them adapt",
        "Wu et al., TPAMI 2021, arXiv 2007.01204",
        "progressive:Progressive",
    ),
    "proxy": TrainingMethod(
        "gradients of the original network with the same weights, whose outputs are the spiking network's",
        "Kheradpisheh et al. 2021, arXiv 2109.13208",
        "rates:Proxy",
    ),
    "single-spike": TrainingMethod(
        "distillation into neurons that fire at most once, by membranes at the end and the time of spikes",
        "Datta et al., IJCNN 2021, arXiv 2107.12374",
        "single_spike:SingleSpike",
    ),
    "hybrid-code": TrainingMethod(
        "burst neurons learn the original's activations layer by layer, the read-out an answer that is clear early",
        "Chen et al., TPAMI 2024, arXiv 2305.16594",
        "hybrid_code:HybridCode",
    ),
    "rewire": TrainingMethod(
        "distillation while synapses come and go, until --connectivity of them are left",
        "Chen et al., IJCAI 2021, arXiv 2105.04916",
        "rewire:Rewire",
        options=("connectivity", "l1"),
        continuous=True,
    ),
    "ternary": TrainingMethod(
        "distillation of ternary neurons whose spikes have an amplitude that learns, folded at the end",
        "Guo et al., AAAI 2024, arXiv 2312.06372",
        "amplitude:TernaryAmplitude",
    ),
    "tdbn": TrainingMethod(
        "distillation with batch normalisation over time in front of neurons, folded at the end",
        "Zheng et al., AAAI 2021, arXiv 2011.05280",
        "batch_norm:BatchNorm",
        options=("l1",),
    ),
}
