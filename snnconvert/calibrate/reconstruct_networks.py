"""The ANN and the spiking network side by side on the calibration images, holding only the values still needed.

Every node has three values: `ann` (of the network as it was given), `frames` (what the converted part sends, frame by
frame) and `mean` (its average over the frames; over several numbers of frames, one batch after the other, where the
network has to serve several). Every operator of a spiking network is exact in the mean, so `mean` costs one evaluation
whatever the number of frames. Values at sites, at their maximum pools and at branchings are stored, all others are
computed when asked for: at all positions, or only at some, which costs little where a map is large. Spikes are kept
packed; means of bits are computed from them too.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, fx

from snnconvert.calibrate.live_values import Chunk, made_anew
from snnconvert.calibrate.packed_units import share_sent
from snnconvert.calibrate.pixels import SomePixels, at_pixels, pixels_before, some_pixels
from snnconvert.calibrate.sent_spikes import Sent, Spikes, finds_means, folded, moved_amplitude, wired
from snnconvert.graph.dialect import arguments, op_of, output_nodes, role_of
from snnconvert.graph.edit import kind_of
from snnconvert.graph.kinds import Affine, Events, MaxPool, Op, Role, Weighted
from snnconvert.graph.schedule import Schedule
from snnconvert.graph.walk import Pull, applied, upstream
from snnconvert.simulate.frames import Frames, over_time
from snnconvert.simulate.kernels import choose
from snnconvert.simulate.kernels.bits import Bits
from snnconvert.simulate.kernels.layout import Packed, by_tables, per_element
from snnconvert.simulate.kernels.native import MOST_TERMS, Convolution, Current, ScaledSpikes, Shifted, Summand
from snnconvert.simulate.moving_input import check_input
from snnconvert.simulate.over_time import by_frames, cast, compensated, running_maximum


class Networks:
    """Evaluates any node of the ANN and of the spiking network.

    Args:
        ann: the network as it was given.
        graph: its copy, whose operators are replaced as they are calibrated.
        schedule: the schedule that the network will run in.
        read_at: the numbers of frames over which `mean` averages.
    """

    def __init__(
        self, ann: fx.GraphModule, graph: fx.GraphModule, schedule: Schedule, read_at: tuple[int, ...]
    ) -> None:
        self.graph, self.schedule, self.read_at = graph, schedule, read_at
        self.nodes: list[fx.Node] = [node for node in graph.graph.nodes if node.op != "output"]
        self.position = {node: index for index, node in enumerate(self.nodes)}
        self.original: dict[str, Op] = {node.name: op_of(node) for node in ann.graph.nodes if node.op == "call_module"}
        self.native = None if schedule.windowed else choose()
        # by node, and whether only some positions are computed
        self.packed: dict[tuple[fx.Node, bool], tuple[Op, Weighted | None, Packed | None]] = {}
        self.stored: set[fx.Node] = set()
        self._senders: dict[fx.Node, list[fx.Node]] = {}
        self._remembered: set[fx.Node] = set()
        self._worth: dict[tuple[fx.Node, tuple[int, ...]], tuple[list[Tensor], Tensor]] = {}
        self._some: dict[fx.Node, tuple[Tensor, Op, SomePixels | None]] = {}
        for node in self.nodes:
            if self._is_stored(node):
                self.stored.add(node)
        self.remade = made_anew(self.nodes, self.stored)

    def _is_stored(self, node: fx.Node) -> bool:
        if node.op == "placeholder":
            return True
        role = op_of(node).role
        if role == Role.MAXPOOL and self.sites_of(node):
            return True
        return role in (Role.SITE, Role.EVENTS) or len(node.users) > 1

    def sites_of(self, node: fx.Node) -> list[fx.Node]:
        """The sites whose spikes `node` sends on, through maximum pools and wiring; none where it does not."""
        if node not in self._senders:
            self._senders[node] = self._find_sites(node)
        return self._senders[node]

    def _find_sites(self, node: fx.Node) -> list[fx.Node]:
        if node.op != "call_module" or self.schedule.windowed:
            return []
        op = op_of(node)
        if op.role == Role.SITE:
            return [node]
        if op.role != Role.MAXPOOL and not (op.role == Role.WIRING and op.keeps_spikes):
            return []
        sites = [self.sites_of(source) for source in arguments(node)]
        return list(dict.fromkeys(site for some in sites for site in some)) if all(sites) else []

    def begin(self, chunks: list[Chunk]) -> None:
        """Present the images, or the recordings."""
        for node in self.nodes:
            for chunk in chunks if node.op == "placeholder" else ():
                chunk.ann.lend(node, chunk.images)
                chunk.mean.lend(node, self._for_every_read(chunk.images))
                chunk.frames.lend(node, Frames(chunk.images, constant=True))
            for chunk in chunks if role_of(node) == Role.EVENTS else ():
                self._replay(chunk, node)

    def _replay(self, chunk: Chunk, node: fx.Node) -> None:
        """What comes in in each frame of recordings, as the spiking network will be given it."""
        op, frames = op_of(node, Events), self.schedule.frames
        incoming = check_input(self.graph, self.schedule, chunk.images)
        assert incoming is not None
        units, _ = op.received(incoming.frames(0, frames))
        sent = Sent(units.flatten(0, 1), op.amplitude, (0, op.levels), share_sent(units))
        chunk.ann.lend(node, chunk.images)
        self.keep(chunk, node, sent)

    def region(self, node: fx.Node) -> set[fx.Node]:
        """All nodes from `node` back to the stored ones, those included."""
        return set(upstream([node], until=self.stored))

    def ann(self, chunk: Chunk, node: fx.Node) -> Tensor:
        """What the ANN computes at `node`."""
        value: Tensor = Pull(lambda one, inputs: self.original[one.name](*inputs), chunk.ann.get)(node)
        return value

    def wanted(self, chunk: Chunk, node: fx.Node, *, remember: bool = False) -> Tensor:
        """What the ANN computes at `node`, as often as `mean` averages; `remember` it until the next site is done."""
        value = self.ann(chunk, node)
        if remember and node not in self.stored and node not in chunk.ann:
            (user,) = node.users if len(node.users) == 1 else (node,)
            if role_of(user) == Role.SITE:  # what it makes of the value stays, and is all that is read of it later
                chunk.ann[user] = self.original[user.name](value)
            else:
                chunk.ann[node] = value
                self._remembered.add(node)
        return self._for_every_read(value)

    def forget_remembered(self, chunks: list[Chunk]) -> None:
        """Drop what was only remembered."""
        for node in self._remembered:
            for chunk in chunks:
                chunk.ann.pop(node)
        self._remembered.clear()

    def _for_every_read(self, tensor: Tensor) -> Tensor:
        return tensor if len(self.read_at) == 1 else tensor.repeat(len(self.read_at), *([1] * (tensor.ndim - 1)))

    def mean(self, chunk: Chunk, node: fx.Node) -> Tensor:
        """What the spiking network computes at `node`, averaged over its frames, (reads * batch, *sample)."""

        def known(one: fx.Node) -> Tensor | None:
            if one in chunk.mean:
                return chunk.mean[one]
            stored = chunk.frames.get(one)
            if isinstance(stored, Spikes):
                return stored.sent().means(self.schedule.frames, self.read_at)
            if role_of(one) == Role.MAXPOOL and self.schedule.windowed:
                return self.averaged(self.frames(chunk, one))
            return None

        return Pull(applied, known)(node)

    def keep(self, chunk: Chunk, node: fx.Node, sent: Sent) -> None:
        """Keep what `node` sends, and its means unless they are soon found from it."""
        frames = self.schedule.frames
        if not finds_means(frames, sent.range, bits=isinstance(sent.spikes, Bits)):
            chunk.mean[node] = sent.means(frames, self.read_at)
        chunk.frames[node] = sent.kept(frames)

    def mean_at(self, chunk: Chunk, node: fx.Node, pixels: Tensor) -> Tensor:
        """`mean` at some pixels (indices into height * width) only, (reads * batch, channels, pixels, 1)."""
        return self.frames_at(chunk, node, pixels, mean=True).tensor

    def read(self, chunk: Chunk, node: fx.Node, start: int) -> Tensor:
        """What the spiking network computes at `node`, averaged over the frames from `start` on."""
        if start == 0:
            return self.mean(chunk, node)
        return self.averaged(self.frames(chunk, node), start)

    def averaged(self, value: Frames, start: int = 0) -> Tensor:
        """The means over the frames from `start` until each of `read_at`, (reads * batch, *sample)."""
        if value.constant:
            return self._for_every_read(value.tensor)
        by_frame = self.by_frames(value.tensor)
        return torch.cat([by_frame[start:end].mean(0) for end in self.read_at])

    def by_frames(self, tensor: Tensor) -> Tensor:
        """(frames * batch, *sample) as (frames, batch, *sample)."""
        return by_frames(tensor, self.schedule.frames)

    def frames(self, chunk: Chunk, node: fx.Node) -> Frames:
        """What the spiking network computes at `node` in every frame."""

        def known(one: fx.Node) -> Frames | None:
            stored = chunk.frames.get(one)
            if isinstance(stored, Spikes):
                return Frames(stored.sent().values(), constant=False)
            return stored or self._folded(chunk, one)

        return Pull(lambda one, inputs: self._evaluate(op_of(one), inputs), known)(node)

    def _sent(self, chunk: Chunk, node: fx.Node, pixels: Tensor | None = None) -> Sent | None:
        """What `node` sends, everywhere or at some pixels, where that is spikes, whatever they are worth where."""
        stored = chunk.frames.get(node)
        if isinstance(stored, Spikes):
            if pixels is None:
                return stored.sent()
            return stored.at(pixels) if stored.by_channel else None
        if stored is not None or not self.sites_of(node) or op_of(node).role != Role.WIRING:
            return None
        before = None if pixels is None else pixels_before(node, pixels)
        known = pixels is None or before is not None
        parts = [self._sent(chunk, source, before) for source in arguments(node)] if known else [None]
        if not all(parts):
            return None
        if before is not pixels:  # rows or columns are left out, and nothing else
            return parts[0]
        moved = tuple(node.meta["shape"]) if pixels is None else (node.meta["shape"][0], len(pixels), 1)
        return self._wired(node, [part for part in parts if part], moved)

    def _wired(self, node: fx.Node, parts: list[Sent], shape: tuple[int, ...]) -> Sent:
        """What an operator that moves spikes makes of them; what these are worth is the same for all images."""
        given = [part.amplitude for part in parts]
        known, found = self._worth.get((node, shape), ([], None))
        if found is None or any(one is not other for one, other in zip(given, known, strict=True)):
            found = moved_amplitude(op_of(node), parts)
            self._worth[node, shape] = given, found
        return wired(op_of(node), parts, shape, found)

    def frames_at(self, chunk: Chunk, node: fx.Node, pixels: Tensor, *, mean: bool = False) -> Frames:
        """`frames` at some pixels (indices into height * width) only, (frames * batch, channels, pixels, 1).

        Only what these pixels read is computed, as far as that is less than everything. `mean` takes the means for what
        is sent, which is then constant.
        """
        stored, shape, sources = node in chunk.frames, tuple(node.meta["shape"]), arguments(node)
        kept = mean and (node in chunk.mean or not stored)
        sent = None if kept else self._sent(chunk, node, pixels)
        if sent is not None:
            return Frames(sent.means(self.schedule.frames, self.read_at) if mean else sent.values(), constant=mean)
        before = None if stored else pixels_before(node, pixels)
        if before is not None and self.native is not None and not mean and self._adds_up(chunk, node):
            terms = self.summands(chunk, node, pixels)
            batch, at = len(chunk.images), (shape[0], len(pixels), 1)
            return Frames(self.native.currents(terms, self.schedule.frames, batch, at), constant=False)
        if before is not None:
            inputs = [self.frames_at(chunk, one, before, mean=mean) for one in sources]
            return inputs[0] if before is not pixels else self._evaluate(op_of(node), inputs)
        some = None if stored else self._some_of(node, pixels)
        if some is not None:
            return self._convolved_at(chunk, node, some, mean=mean)
        value = Frames(self.mean(chunk, node), constant=True) if mean else self.frames(chunk, node)
        if not stored and len(pixels) == math.prod(shape[1:]) and torch.equal(pixels, torch.arange(len(pixels))):
            return Frames(value.tensor.flatten(2).unsqueeze(-1), value.constant)  # nobody else keeps it
        return Frames(at_pixels(value.tensor, pixels), value.constant)

    def _adds_up(self, chunk: Chunk, node: fx.Node) -> bool:
        """Whether kernels may add up what `node` does."""
        alike = kind_of(node) == "Add" and all(one.meta["shape"] == node.meta["shape"] for one in arguments(node))
        return alike and len(arguments(node)) <= MOST_TERMS and node not in chunk.frames

    def _some_of(self, node: fx.Node, pixels: Tensor) -> SomePixels | None:
        """A convolution at `pixels` alone; None where that is no less than everything, and for other operators."""
        if kind_of(node) != "Conv" or 2 * len(pixels) > math.prod(node.meta["shape"][1:]):
            return None
        found = self._some.get(node)
        if found is None or found[0] is not pixels or found[1] is not op_of(node):
            some = some_pixels(node, pixels, kept=arguments(node)[0] in self.stored)
            self._some[node] = found = (pixels, op_of(node), some)
        return found[2]

    def _convolved_at(self, chunk: Chunk, node: fx.Node, some: SomePixels, *, mean: bool) -> Frames:
        sent = None if mean else self._sent(chunk, some.source, some.pixels)
        shape, laid_out = (some.op.weight.shape[0], some.count, 1), (some.outside, some.height, some.width)
        found = self._through(node, some.op, sent.laid_out(*laid_out), shape) if sent else None
        if found is not None:
            return found
        value = self.frames_at(chunk, some.source, some.pixels, mean=mean)
        value.tensor[:, :, some.outside] = 0
        maps = value.tensor.view(*value.tensor.shape[:2], some.height, some.width)
        return self._evaluate(some.op, [Frames(maps, value.constant)])

    def _folded(self, chunk: Chunk, node: fx.Node) -> Frames | None:
        """An operator on stored spikes, amplitudes folded into its weights as `spikify` will do; None elsewhere."""
        sent = self._sent(chunk, arguments(node)[0]) if op_of(node).gathers else None
        return None if sent is None else self._through(node, op_of(node, Weighted), sent, tuple(node.meta["shape"]))

    def _through(self, node: fx.Node, form: Weighted, sent: Sent, shape: tuple[int, ...]) -> Frames | None:
        """Spikes through the operator of `node` in some form, amplitudes folded; None where they cannot be.

        The weights are rounded, so that native kernels and torch give the same sums.
        """
        reading, packed = self._folded_op(node, form, sent)
        if reading is None:
            return None
        frames = self.schedule.frames
        term = self._convolution(sent, packed, shape)
        if term is None or self.native is None:
            (moved,) = cast(reading, [sent.units])
            ordered = moved.contiguous(memory_format=torch.channels_last) if moved.ndim == 4 else moved
            return Frames(reading(ordered).float(), constant=False)
        batch = len(sent.spikes) // frames
        return Frames(self.native.currents([term], frames, batch, shape), constant=False)

    def _convolution(self, sent: Sent, packed: Packed | None, shape: tuple[int, ...]) -> Convolution | None:
        """Spikes through packed weights by a native kernel; None where a dense operator is faster, or has to do it."""
        if self.native is None or packed is None:
            return None
        tables = by_tables(packed, sent.density, sent.planes, len(sent.spikes) * math.prod(shape))
        return None if tables is None else Convolution(sent.for_kernels(self.native), packed, tables)

    def summands(self, chunk: Chunk, node: fx.Node, pixels: Tensor | None = None) -> list[Summand]:
        """The current at `node`, everywhere or at some pixels, for the kernel that adds it up, in the order of its sum.

        What spikes cause everywhere is not made into a current over time first.
        """
        whole = tuple(node.meta["shape"])
        shape = whole if pixels is None else (whole[0], len(pixels), 1)
        sent = self._sent(chunk, node, pixels)
        if sent is not None and sent.planes and self.native is not None:
            return [ScaledSpikes(sent.for_kernels(self.native), per_element(sent.amplitude, shape))]
        if self._adds_up(chunk, node):
            first, *others = arguments(node)
            terms = self.summands(chunk, first, pixels)
            if len(terms) + len(others) > MOST_TERMS:
                terms = [self._added_up(chunk, first, pixels)]
            for other in others:
                more = self.summands(chunk, other, pixels)
                terms += more if len(more) == 1 else [self._added_up(chunk, other, pixels)]
            return terms
        term = self._gathered(chunk, node) or self._shifted(chunk, node) if pixels is None else None
        return [self._added_up(chunk, node, pixels) if term is None else term]

    def _gathered(self, chunk: Chunk, node: fx.Node) -> Convolution | None:
        """What an operator on spikes gathers, for a kernel; None elsewhere."""
        if node in chunk.frames or len(node.meta["shape"]) == 2 or node.op != "call_module" or not op_of(node).gathers:
            return None
        sent = self._sent(chunk, arguments(node)[0])
        if sent is None:
            return None
        reading, packed = self._folded_op(node, op_of(node, Weighted), sent)
        return None if reading is None else self._convolution(sent, packed, tuple(node.meta["shape"]))

    def _shifted(self, chunk: Chunk, node: fx.Node) -> Shifted | Current | None:
        """A scale and shift that nobody has computed yet, by a kernel where it varies over time; None elsewhere."""
        if kind_of(node) != "Affine" or node in chunk.frames:
            return None
        op, (source,), shape = op_of(node, Affine), arguments(node), tuple(node.meta["shape"])
        value, scale, shift = self.frames(chunk, source), per_element(op.scale, shape), per_element(op.shift, shape)
        fits = tuple(source.meta["shape"]) == shape and len(scale) == len(shift) and not value.constant
        return Shifted(value.tensor, scale, shift) if fits else self._as_current(self._evaluate(op, [value]))

    def _added_up(self, chunk: Chunk, node: fx.Node, pixels: Tensor | None = None) -> Current:
        return self._as_current(self.frames(chunk, node) if pixels is None else self.frames_at(chunk, node, pixels))

    def _as_current(self, value: Frames) -> Current:
        return Current(value.tensor, value.constant and self.schedule.frames > 1)

    def _folded_op(self, node: fx.Node, form: Weighted, sent: Sent) -> tuple[Weighted | None, Packed | None]:
        """The operator of `node` in some form with its amplitudes folded in, and the same for kernels."""
        op = op_of(node)
        key = (node, form is not op)
        kept = self.packed.get(key)
        if kept is None or kept[0] is not op:
            self.packed[key] = kept = (op, *folded(form, sent, self.native, windowed=self.schedule.windowed))
        return kept[1], kept[2]

    def _evaluate(self, op: Op, inputs: list[Frames]) -> Frames:
        if all(value.constant for value in inputs):
            return Frames(op(*(value.tensor for value in inputs)), constant=True)
        tensors = [over_time(value, self.schedule.frames) for value in inputs]
        if op.role == Role.MAXPOOL and not self.schedule.windowed:
            return Frames(running_maximum(op, tensors[0], self.schedule.frames), constant=False)
        if op.role == Role.ANALOG:
            return Frames(compensated(op, tensors, self.schedule.frames, torch.float32), constant=False)
        return Frames(op(*tensors), constant=False)

    def store(self, chunk: Chunk, node: fx.Node) -> None:
        """Keep the value of a pool or of a branching node; events are there from the start."""
        if role_of(node) == Role.EVENTS:
            return
        chunk.ann[node] = self.ann(chunk, node)
        pools = role_of(node) == Role.MAXPOOL and self.sites_of(node)
        sent = self._sent(chunk, arguments(node)[0]) if pools else self._sent(chunk, node)
        if sent is not None and not pools:
            self.keep(chunk, node, sent)
            return
        if sent is not None and sent.by_channel:
            pooled = sent.moved(self._pooled(op_of(node, MaxPool), sent, tuple(node.meta["shape"])))
            self.keep(chunk, node, replace(pooled, density=pooled.share()))
            return
        frames = self.frames(chunk, node)
        chunk.mean[node], chunk.frames[node] = self.averaged(frames), frames

    def _pooled(self, op: MaxPool, sent: Sent, shape: tuple[int, ...]) -> Tensor | Bits:
        """Increments of the running maximum, (frames * batch, *shape)."""
        frames, spikes = self.schedule.frames, sent.spikes
        if self.native is not None and len(shape) == 3 and (isinstance(spikes, Bits) or spikes.dtype == torch.int8):
            return self.native.max_pool(sent.for_kernels(self.native), op, frames, shape)
        return running_maximum(op, sent.units, frames)

    def outputs(self) -> list[fx.Node]:
        """The nodes that the network returns."""
        return output_nodes(self.graph)
