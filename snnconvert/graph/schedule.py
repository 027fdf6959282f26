"""Time: which site integrates and emits in which step.

T (timesteps) is the total number of steps from the first input to the answer. The depth of a site is the largest
number of spiking sites on a path from the input to it, itself included; the largest depth is D.

streaming     every site integrates and emits in every step; a spike crosses all layers within its step.
wait d        E = T - D d. A site at depth k integrates in steps [(k-1) d, (k-1) d + E) and emits in
              [k d, k d + E); the read-out integrates in [D d, D d + E).
bistable K    windows of K steps, alternately integrating and emitting. A site at depth k integrates in windows
              k-1, k+1, ... and emits in windows k, k+2, ...; the first answer stands after (D + 1) K steps, later
              ones follow every 2 K (reconstruction of Li, Zeng & Zhao, arXiv 2105.12917).

A *frame* is what one site hands to the next as one value: a step's spikes (streaming, wait) or a window's (bistable).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from torch import fx

from snnconvert.errors import OptionError
from snnconvert.graph.dialect import calls
from snnconvert.graph.ops import Role

KINDS = ("streaming", "wait", "bistable")


@dataclass(frozen=True)
class Schedule:
    """When each site integrates and emits.

    Attributes:
        kind: streaming, wait or bistable.
        timesteps: T, the total number of steps.
        depth: D, the largest depth of a site.
        wait: steps that a site integrates before it may emit (wait).
        window: K, steps per window (bistable).
        phases: weights of the spikes in a window: power2 (2^(K-1-k) units at phase k) or uniform (bistable).
        residual: what becomes of the membrane after an emitting window: keep, clear or clamp (bistable).
    """

    kind: str
    timesteps: int
    depth: int
    wait: int = 0
    window: int = 0
    phases: str = "power2"
    residual: str = "keep"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise OptionError(f"unknown schedule {self.kind!r}", hint=f"choose one of {', '.join(KINDS)}")
        if self.timesteps < 1:
            raise OptionError(f"--timesteps {self.timesteps} is below 1", hint="ask for at least 1 step, e.g. -T 32")
        if self.frames < 1:
            raise OptionError(
                f"{self.timesteps} steps are too few for schedule {self.describe()} on a network {self.depth} deep",
                hint=self._budget_hint(),
            )

    @property
    def frames(self) -> int:
        """How many frames each site emits."""
        if self.kind == "wait":
            return self.timesteps - self.depth * self.wait
        if self.kind == "bistable":
            first = (self.depth + 1) * self.window
            return 0 if self.timesteps < first else 1 + (self.timesteps - first) // (2 * self.window)
        return self.timesteps

    @property
    def steps_per_frame(self) -> int:
        """Steps in which the spikes of one frame are sent."""
        return self.window if self.kind == "bistable" else 1

    @property
    def levels(self) -> int:
        """Units that a binary neuron can send in one frame."""
        if self.kind != "bistable":
            return 1
        return self.window if self.phases == "uniform" else 2**self.window - 1

    def answer_step(self, frame: int) -> int:
        """The step (1-based) after which `frame` (0-based) has been read out."""
        if self.kind == "wait":
            return self.depth * self.wait + frame + 1
        if self.kind == "bistable":
            return (self.depth + 1 + 2 * frame) * self.window
        return frame + 1

    def emission_step(self, depth: int, frame: int, phase: int = 0) -> int:
        """The step (0-based) in which a site at `depth` sends phase `phase` of `frame`."""
        if self.kind == "wait":
            return depth * self.wait + frame
        if self.kind == "bistable":
            return (depth + 2 * frame) * self.window + phase
        return frame

    def integration_step(self, depth: int, frame: int) -> int:
        """The first step (0-based) in which a site at `depth` takes in `frame`."""
        return self.emission_step(depth - 1, frame)

    @property
    def latency(self) -> dict[str, int]:
        """window, first_output and total, as every report states them."""
        window = self.window if self.kind == "bistable" else self.frames
        return {
            "window": window,
            "first_output": self.answer_step(0),
            "total": self.answer_step(self.frames - 1),
        }

    def describe(self) -> str:
        """The schedule in a word or two."""
        return {"wait": f"wait {self.wait}", "bistable": f"bistable, window {self.window}"}.get(self.kind, self.kind)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)

    def _budget_hint(self) -> str:
        if self.kind == "wait":
            return f"use at least -T {self.depth * self.wait + 1}, or a smaller --wait"
        two, four = ((self.depth + 1) * window for window in (2, 4))
        return f"a window of 2 needs -T {two}, a window of 4 needs -T {four}; or use --schedule streaming"


def site_depths(graph: fx.GraphModule) -> dict[str, int]:
    """Depth of the value at every node: the largest number of spiking sites on a path from the input to it."""
    depths: dict[fx.Node, int] = {}
    spiking = {node for node, op in calls(graph) if op.role in (Role.SITE, Role.NEURON)}
    for node in graph.graph.nodes:
        depths[node] = max((depths[source] for source in node.all_input_nodes), default=0) + (node in spiking)
    return {node.name: depth for node, depth in depths.items()}
