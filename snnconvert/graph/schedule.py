"""Time: which site integrates and emits in which step.

T (timesteps) is the total number of steps from the first input to the answer. The depth of a site is the largest
number of spiking sites on a path from the input to it, itself included; the largest depth is D.

streaming     every site integrates and emits in every step; a spike crosses all layers within its step.
wait d        E = T - D d. A site at depth k integrates in steps [(k-1) d, (k-1) d + E) and emits in
              [k d, k d + E); the read-out integrates in [D d, D d + E).
bistable K    windows of K steps, alternately integrating and emitting. A site at depth k integrates in windows
              k-1, k+1, ... and emits in windows k, k+2, ...; the first answer stands after (D + 1) K steps, later
              ones follow every 2 K (reconstruction of Li, Zeng & Zhao, arXiv 2105.12917).

Streaming and wait can read late: the read-out leaves out its first `read_from` frames, in which deep layers have not
settled, and answers with the mean of the others.

A *frame* is what one site hands to the next as one value: a step's spikes (streaming, wait) or a window's (bistable).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from torch import fx

from snnconvert.errors import OptionError
from snnconvert.graph.dialect import calls, origin_of, output_nodes
from snnconvert.graph.kinds import Constant, Role

if TYPE_CHECKING:
    from snnconvert.graph.types import Snn

KINDS = ("streaming", "wait", "bistable")
# far beyond what any network needs; whoever asks for more has mistyped, or has a damaged file
MOST_TIMESTEPS = 2**16
PHASES = ("power2", "uniform")
RESIDUALS = ("keep", "clear", "clamp")
ROUNDINGS = ("nearest", "floor")
LONGEST_WINDOW = {"power2": 16, "uniform": 1024}
SPIKING = (Role.SITE, Role.NEURON, Role.DELAY)


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
        residual: what becomes of the membrane after an emitting window: keep, clear (to its value at t = 0) or clamp
            (to what one unit is worth) (bistable).
        rounding: nearest (membranes start at half a threshold) or floor (at 0).
        read_from: frames that the read-out leaves out at the start; there is no answer before (streaming, wait).
    """

    kind: str
    timesteps: int
    depth: int
    wait: int = 0
    window: int = 0
    phases: str = "power2"
    residual: str = "keep"
    rounding: str = "nearest"
    read_from: int = 0

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("schedule", self.kind, KINDS),
            ("phases", self.phases, PHASES),
            ("residual", self.residual, RESIDUALS),
            ("rounding", self.rounding, ROUNDINGS),
        ):
            if value not in allowed:
                raise OptionError(f"unknown {name} {value!r}", hint=f"choose one of {', '.join(allowed)}")
        longest = LONGEST_WINDOW[self.phases]
        if self.kind == "bistable" and not 1 <= self.window <= longest:
            raise OptionError(
                f"--window {self.window} is outside 1 to {longest}",
                hint="a window of 5 or 6 steps is enough for most networks, e.g. --window 5",
            )
        if self.kind == "wait" and self.wait < 0:
            raise OptionError(f"--wait {self.wait} is below 0", hint="--wait 1 gives every layer one step to take in")
        if self.timesteps < 1:
            raise OptionError(f"--timesteps {self.timesteps} is below 1", hint="ask for at least 1 step, e.g. -T 32")
        if self.frames < 1:
            raise OptionError(
                f"{self.timesteps} steps are too few for schedule {self.describe()} on a network {self.depth} deep",
                hint=self._budget_hint(),
            )
        self._check_read_out()

    def _check_read_out(self) -> None:
        if self.read_from and self.kind == "bistable":
            raise OptionError(
                f"--read-from {self.read_from} does not fit a bistable schedule, which answers window by window",
                hint="leave --read-from out, or choose --schedule streaming or wait",
            )
        if not 0 <= self.read_from < self.frames:
            raise OptionError(
                f"--read-from {self.read_from} is outside 0 to {self.frames - 1}: some of the {self.frames} steps that "
                "reach the read-out have to be read",
                hint="leave out about a quarter of the steps at most, or give --read-from auto",
            )

    @property
    def waited(self) -> int:
        """Steps that a site integrates before it may emit: 0 unless the kind is wait."""
        return self.wait if self.kind == "wait" else 0

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

    @property
    def answer_steps(self) -> list[int]:
        """The steps (1-based) after which the answers stand, one per frame that is read."""
        return [self.answer_step(frame) for frame in range(self.read_from, self.frames)]

    def answer_step(self, frame: int) -> int:
        """The step (1-based) after which `frame` (0-based) has reached the read-out."""
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

    def intervals(self, depth: int) -> list[tuple[int, int]]:
        """The steps [from, to) in which a site at `depth` emits, one pair for each stretch without a pause."""
        start = self.emission_step(depth, 0)
        if self.kind != "bistable":
            return [(start, start + self.frames)]
        starts = [self.emission_step(depth, frame) for frame in range(self.frames)]
        return [(start, start + self.window) for start in starts]

    @property
    def interval(self) -> int:
        """Steps between the answers to consecutive inputs when inputs follow each other as closely as they can.

        A bistable neuron is busy with an input for as long as it takes in and sends its frames. (With a second set
        of membranes the idle half of each cycle could serve another input.)
        """
        return 2 * self.window * self.frames if self.kind == "bistable" else self.frames

    @property
    def initial(self) -> float:
        """Membrane potential at t = 0 as a fraction of the threshold: 1/2 rounds to nearest, 0 rounds down."""
        return 0.0 if self.rounding == "floor" else 0.5

    @property
    def latency(self) -> dict[str, int]:
        """window, first_output and total, as every report states them."""
        window = self.window if self.kind == "bistable" else self.frames
        return {
            "window": window,
            "first_output": self.answer_step(self.read_from),
            "total": self.answer_step(self.frames - 1),
        }

    def describe(self) -> str:
        """The schedule in a few words."""
        kind = {"wait": f"wait {self.wait}", "bistable": f"bistable, window {self.window}"}.get(self.kind, self.kind)
        return f"{kind}, read from step {self.answer_step(self.read_from)}" if self.read_from else kind

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)

    def _budget_hint(self) -> str:
        if self.kind == "wait":
            return f"use at least -T {self.depth * self.wait + 1}, or a smaller --wait"
        two, four = ((self.depth + 1) * window for window in (2, 4))
        return f"a window of 2 needs -T {two}, a window of 4 needs -T {four}; or use --schedule streaming"


def site_depths(graph: fx.GraphModule) -> dict[str, int]:
    """Depth of the value at every node: the largest number of spiking sites on a path from the input to it.

    A synchronous neuron counts as a site; a constant does not depend on what it is called with.
    """
    depths: dict[fx.Node, int] = {}
    operators = dict(calls(graph))
    for node in graph.graph.nodes:
        op = operators.get(node)
        deepest = max((depths[source] for source in node.all_input_nodes), default=0)
        spiking = op is not None and op.role in SPIKING
        depths[node] = 0 if isinstance(op, Constant) else deepest + spiking
    return {node.name: depth for node, depth in depths.items()}


def plan(snn: Snn, windows: int = 4) -> list[dict[str, Any]]:
    """When each site of `snn` integrates and emits, in data-flow order; steps are 0-based and half open.

    Each row holds site, origin, depth, kind ("neuron" or "synchronous") and the first `windows` intervals of
    `integrates` and `emits`; the last row, of kind "read-out", only integrates. Streaming and wait have one interval.
    """
    depths, schedule = site_depths(snn.graph), snn.schedule
    rows = [
        {
            "site": node.name,
            "origin": str(origin_of(node)),
            "depth": depths[node.name],
            "kind": "synchronous" if op.role == Role.DELAY else "neuron",
            "integrates": schedule.intervals(depths[node.name] - 1)[:windows],
            "emits": schedule.intervals(depths[node.name])[:windows],
        }
        for node, op in calls(snn.graph)
        if op.role in SPIKING
    ]
    for node in output_nodes(snn.graph):
        rows.append(
            {
                "site": node.name,
                "origin": str(origin_of(node)),
                "depth": depths[node.name] + 1,
                "kind": "read-out",
                "integrates": _read(schedule, depths[node.name])[:windows],
                "emits": [],
            }
        )
    return rows


def _read(schedule: Schedule, depth: int) -> list[tuple[int, int]]:
    """The steps [from, to) in which an output at `depth` is read."""
    (first, last), *others = schedule.intervals(depth)
    return [(first + schedule.read_from, last), *others]
