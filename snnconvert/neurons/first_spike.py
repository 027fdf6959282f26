"""First-spike neuron: for one window it only integrates, in the next it sends at most one spike, whose time is a value.

In continuous time, windows of length B (Stanojevic et al., Neural Networks 2023, and Nature Communications 15:6793,
2024, the mapping with a constant slope at the threshold): a spike at t in [t_min, t_max) is worth x = t_max - t, none
is worth 0. Every spike that arrives adds its weight to the membrane's slope, so that at the end of the window

    v(t_min) = sum_j W_ij x_j + b_i ;   then  dv/dt = 1  and the threshold is B:   t_i = t_max - v(t_min) .

With a time grid of L slots a window, of q each (the threshold), slot k is worth L - k units:

    integrating   v <- v + I
    sending       s = [v >= (L - k) q] if nothing was sent yet

which makes n = clip(floor(v / q), 0, L) units; with v(0) = q / 2 that is rounding to nearest. A value of either sign
takes two neurons, one for each sign, of which at most one sends. `fire` is the sum over a window.
"""

from __future__ import annotations

from snnconvert.neurons.base import NeuronModel
from snnconvert.neurons.burst import fire

FIRST_SPIKE = NeuronModel(
    "first-spike",
    fire,
    range=lambda levels: (0, levels),
    source="Stanojevic et al., Neural Networks 2023; Nature Communications 15:6793, 2024",
    offered=False,
)
