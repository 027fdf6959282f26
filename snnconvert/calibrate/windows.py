"""Thresholds for one window a layer: the largest calibration activations, shared out as products of spikes need it.

A neuron's levels reach to the largest activation of its channel: a value that is cut off in an attention's input costs
more than a coarser step. Beyond that, with L levels:

    a b          counts are multiplied one by one, so that a_ic b_cj is to be worth the same for every c:
                 theta_ic = s_i g_c / L and theta_cj = s_j / (g_c L), with g_c = sqrt(max a_c / max b_c), and s_i the
                 largest |a_ic| / g_c of a row. Rows, and with them the class token, have thresholds of their own.
    e v / sum e  an output is a mean of values: its thresholds are theirs times a number of three bits, so that the sum
                 of e needs shifts and an addition
    f(x), e      the largest is the power of two in the first slot; of what is squared one for all channels, so that a
                 square is added up as it is
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, fx

from snnconvert.calibrate.observe import broadcastable, channel_axis, rounded_up
from snnconvert.calibrate.options import Windows
from snnconvert.calibrate.task import Task
from snnconvert.graph.dialect import arguments, op_of, sites
from snnconvert.graph.edit import kind_of
from snnconvert.graph.kinds import Activation
from snnconvert.graph.types import Calibrated, SiteCalibration
from snnconvert.graph.walk import batch_of, walk
from snnconvert.options import made

# How far beyond the largest calibration activation a window reaches: from 1 for 16 levels, by a quarter more for each
# doubling, to 1.5; functions reach twice as far. Relative error of the outputs on other training images, per cent, at
# 1, 1.25 and 1.5: vit_pgd_2_3_16 with 16 levels 12.8, 13.5, 15.6, with 32 9.2, 7.3, 8.1, with 255 7.5, 3.3, 1.8;
# DeiT-tiny with 16 35.0, 40.4, -, with 32 24.4, 23.9, -, with 255 18.3, 17.0, 16.2
FEW_LEVELS, MOST_ROOM = 16, 1.5


def room(levels: int) -> float:
    """The reach of windows of so many levels, in largest calibration activations."""
    return min(max(1.0, 1.0 + 0.25 * math.log2(levels / FEW_LEVELS)), MOST_ROOM)


def calibrate_windows(task: Task) -> Calibrated:
    """Every neuron reaches as far as its calibration activations. Its options are those of `Windows`."""
    options = made(Windows, task.options)
    largest = _largest(task)
    found = _Thresholds(task, largest, options.headroom).all()
    record = {"method": "windows", "options": vars(options).copy(), "candidates": []}
    return task.calibrated(task.ann.graph, found, record)


@torch.inference_mode()
def _largest(task: Task) -> dict[fx.Node, Tensor]:
    """The largest absolute value at every place of every site, float64, shaped like one sample."""
    graph = task.ann.graph
    wanted, found = {node for node, _ in sites(graph)}, dict[fx.Node, Tensor]()
    size = batch_of(graph)
    for start in range(0, len(task.images), size):
        for node, _, value in walk(graph, task.images[start : start + size]):
            if node in wanted:
                most = value.abs().amax(0).double()
                found[node] = torch.maximum(found[node], most) if node in found else most
        task.progress("ranges", min(start + size, len(task.images)), len(task.images))
    return {node: rounded_up(most) for node, most in found.items()}


class _Thresholds:
    def __init__(self, task: Task, largest: dict[fx.Node, Tensor], headroom: float) -> None:
        self.room = max(headroom, room(task.schedule.levels))
        self.task, self.largest = task, largest
        self.found: dict[fx.Node, Tensor] = {}

    def all(self) -> dict[str, SiteCalibration]:
        for node, site in self.largest.items():
            if node not in self.found:
                self._site(node, site)
        start = self.task.schedule.initial
        return {
            node.name: SiteCalibration(theta.float(), torch.full_like(theta, start).float())
            for node, theta in self.found.items()
        }

    def _site(self, node: fx.Node, largest: Tensor) -> None:
        op, products = op_of(node, Activation), [user for user in node.users if kind_of(user) == "Product"]
        window = self.task.schedule.steps_per_frame
        usual = self.task.levels(node.name)
        levels: float = op.levels_in(window, usual)
        if levels != usual or kind_of(node) in ("Function", "Exponential"):
            # the first slot is worth half of all levels together
            squared = any(kind_of(user) == "Squares" for user in node.users)
            most = _filled(largest.amax() if squared else self._by_channel(node, largest))
            most = torch.ones(()) if kind_of(node) == "Exponential" else most
            further = 1.0 if kind_of(node) == "Exponential" else max(1.0, self.room / 2)
            self.found[node] = most.double() * further * 2.0 / (levels + 1)
            return
        levels /= self.room
        if products and node is arguments(products[0])[0]:
            self._pair(products[0], levels)
        elif products:
            self.found[node] = _filled(largest.amax(-2, keepdim=True)) / levels
        elif kind_of(node) == "Quotient" and kind_of(arguments(node)[0]) == "Product":
            self._mean_of_values(node, levels)
        else:
            self.found[node] = _filled(self._by_channel(node, largest)) / levels

    def _by_channel(self, node: fx.Node, largest: Tensor) -> Tensor:
        """The largest of each channel, broadcastable to one sample."""
        rank = largest.ndim
        axis = _axis(node)
        return broadcastable(largest.movedim(axis, 0).flatten(1).amax(1) if rank > 1 else largest, axis, rank)

    def _pair(self, product: fx.Node, levels: float) -> None:
        """Both factors of a product."""
        a, b = arguments(product)
        most_a, most_b = _filled(self.largest[a]), _filled(self.largest[b])
        weight = (most_a.amax(-2, keepdim=True) / most_b.amax(-1, keepdim=True).transpose(-1, -2)).sqrt()
        back = 1.0 / weight.transpose(-1, -2)
        self.found[a] = (most_a / weight).amax(-1, keepdim=True) * weight / levels
        self.found[b] = (most_b / back).amax(-2, keepdim=True) * back / levels

    def _mean_of_values(self, node: fx.Node, levels: float) -> None:
        """Of what is a mean of the values that a product reads: their thresholds times j / 4, or a part of that."""
        values = arguments(arguments(node)[0])[1]
        own = _filled(self.largest[node].amax(-2, keepdim=True)) / levels
        mantissa, exponent = torch.frexp(own / self.found[values])
        share = torch.ldexp((mantissa * 8.0).ceil() / 8.0, exponent)
        self.found[node] = share * self.found[values]


def _filled(largest: Tensor) -> Tensor:
    """Silent places take the largest of all."""
    return torch.where(largest > 0, largest, largest.max().clamp(min=1e-6))


def _axis(node: fx.Node) -> int:
    """The channels' axis of one sample: the last, where features are weighed or rows normalised, else the first."""
    rank = len(node.meta["shape"])
    readers = [op_of(user) for user in node.users if user.op == "call_module"]
    by_row = any(getattr(op, "features_last", False) for op in readers)
    from_row = any(kind_of(source) in ("Centre", "Squares") for source in arguments(node))
    if by_row or from_row:
        return rank - 1
    return channel_axis(node) if rank > 1 else 0
