"""Methods whose gradients are those of rates: memory and time of the backward pass do not grow with the steps.

dsr     rates forward, backward the derivative of clip(mean current, 0, threshold), thresholds included
        (Meng et al., CVPR 2022, arXiv 2205.00459)
tandem  rates forward, backward that of the rectifier alone (Wu et al. 2019, arXiv 1907.01167)
proxy   the original network's activations with the student's weights; only its outputs are replaced by the spiking
        network's (Kheradpisheh et al. 2021, arXiv 2109.13208)
"""

from __future__ import annotations

from torch import Tensor

from snnconvert.train.images import Batch
from snnconvert.train.method import Method
from snnconvert.train.rates import over_means, rectified, represented, sent, straight_through


class SpikeRepresentation(Method):
    """DSR."""

    carry = staticmethod(represented)

    def prepare(self, images: Tensor) -> None:
        """Rates are thresholds times counts."""
        del images
        self.refuse_amplitudes()

    def loss(self, batch: Batch, goal: list[Tensor]) -> Tensor:
        """Of the mean outputs; gradients through rates."""
        means, outputs = sent(self.student, batch.images)
        carried = over_means(self.student, batch.images, means, self.carry)
        return self.compared(
            [one + (real - one).detach() for one, real in zip(carried, outputs, strict=True)], goal, batch.labels
        )


class Tandem(SpikeRepresentation):
    """Tandem learning."""

    carry = staticmethod(straight_through)


class Proxy(SpikeRepresentation):
    """Learning by proxy."""

    carry = staticmethod(rectified)
