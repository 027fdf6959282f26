"""Numbers as a few spikes whose step says which power of two they are worth: small and large ones alike in precision.

A window has S slots; a spike in slot k is worth P = 2^(S-1-k) units. At the window's start the membrane holds the
number r to be sent, in units. As long as spikes are left to send,

    s = sign(r) [|r| >= 3/4 P];   r <- r - P s            (1/2 instead of 3/4 where P = 1)

which each time sends the power of two that is nearest to what is left, of either sign: 7 is 8 - 1. Two spikes are 3.7 %
off (root mean square), three 0.7 %, and with one for every slot it is rounding to whole numbers. Such codes (one spike
a value: SpikedAttention, Hwang et al., NeurIPS 2024) suit what a softmax or a GELU gives: most values are small, and
the large ones must not be cut off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snnconvert.neurons.base import NeuronModel
from snnconvert.neurons.signed import fire

if TYPE_CHECKING:
    from torch import Tensor

# slots beyond these would be worth less than 2^-15 of the first: nothing that the sums behind would notice
MOST_SLOTS = 16
_EXPONENT = 0x7FF0000000000000  # of the bits of a float64


def fire_slot(r: Tensor, left: Tensor, power: int) -> tuple[Tensor, Tensor, Tensor]:
    """One slot, whose spikes are worth 2^power units: (spikes, what is left of `r`, of the spikes to send)."""
    import torch

    worth = 2.0**power
    fires = (r.abs() >= (0.75 * worth if power else 0.5)) & (left > 0)
    sent = torch.sign(r) * fires.to(r.dtype)
    return sent, r - sent * worth, left - fires.to(left.dtype)


def powers_of_two(r: Tensor, slots: int, spikes: int) -> tuple[Tensor, Tensor]:
    """What one window sends for `r` (any shape, float64), all slots at once.

    Returns:
        The units that each value is sent as, and the spikes in each slot, all values together, int64 (slots,).
    """
    import torch

    rest, below = r.double(), torch.full((), 2.0**slots, dtype=torch.float64, device=r.device)
    units, sent_in = torch.zeros_like(rest), torch.zeros(slots, dtype=torch.int64)
    for _ in range(min(spikes, slots)):
        size = rest.abs()
        # 2^floor(log2): the bits of the exponent alone; half as much again reaches the next where 3/4 of it are there
        lower = (size.view(torch.int64) & _EXPONENT).view(torch.float64)
        power = ((size + lower * 0.5).view(torch.int64) & _EXPONENT).view(torch.float64).clamp_(min=1.0)
        power = torch.minimum(power, below * 0.5)
        power = power * ((size >= 0.5) & (power >= 1.0))
        exponents = (power.view(torch.int64) >> 52) - 1023  # -1023 of those that send nothing
        sent_in += torch.bincount((slots - 1 - exponents).clamp_(max=slots).flatten(), minlength=slots + 1)[
            :slots
        ].cpu()
        sent = torch.copysign(power, rest)
        units, rest, below = units + sent, rest - sent, power
    return units, sent_in


POWER_OF_TWO = NeuronModel(
    "power-of-two",
    fire,
    range=lambda levels: (-levels, levels),
    source="few powers of two, the nearest first; one a value: Hwang et al., NeurIPS 2024",
    rectifies=False,
    offered=False,
)
