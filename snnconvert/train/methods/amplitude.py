"""Ternary spikes with an amplitude that learns, folded into whatever reads them.

    out = a n,  n in {-1, 0, 1};    the reset stays theta n: a must not enter it

a begins at theta, so that nothing changes at first. Compilation folds it into the next weights, or into a scale where
an identity joins, so that what is sent stays -1, 0 or 1. Source: Guo et al., AAAI 2024 (arXiv 2312.06372). There the
membrane leaks and is reset to zero; here it is that of `snnconvert.neurons.ternary`, with memory and reset by
subtraction.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, fx

from snnconvert.errors import OptionError
from snnconvert.graph.types import Calibrated
from snnconvert.train.method import Method
from snnconvert.train.student import Site, as_neurons


class TernaryAmplitude(Method):
    """Distillation; every channel has an amplitude besides its threshold."""

    def prepare(self, images: Tensor) -> None:
        """Amplitudes that are thresholds still."""
        del images
        for node, site in self.student.sites.items():
            if not site.firing.model.name.startswith("ternary"):
                raise OptionError(
                    f"--method ternary is for ternary neurons, not {site.firing.model.name}",
                    hint="convert with --neuron ternary, or choose --method distill",
                    options=("method", "neuron"),
                )
            self.extra[f"{node.name}.gain"] = torch.zeros_like(site.start).requires_grad_()
        self.student.fire = self._fire

    def _fire(self, node: fx.Node, site: Site, current: Tensor, constant: bool) -> Tensor:
        sent = as_neurons(node, site, current, constant)
        return (sent * self.extra[f"{node.name}.gain"].exp()).to(sent.dtype)

    @torch.no_grad()
    def folded(self, calibrated: Calibrated) -> Calibrated:
        """With amplitudes of their own."""
        gains = {name.removesuffix(".gain"): one.detach().cpu().exp() for name, one in self.extra.items()}
        worth = {
            name: one.threshold if one.amplitude is None else one.amplitude for name, one in calibrated.sites.items()
        }
        sites = {name: replace(one, amplitude=worth[name] * gains[name]) for name, one in calibrated.sites.items()}
        return replace(calibrated, sites=sites)
