"""Values that later layers read, chunk by chunk of the calibration images: in memory as far as they may take some, the
rest in files that vanish with them.

So the number of calibration images does not depend on memory.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, fx

from snnconvert.allocator import hand_back_beyond
from snnconvert.calibrate.sent_spikes import Spikes
from snnconvert.graph.dialect import arguments, op_of, role_of
from snnconvert.graph.kinds import Role
from snnconvert.simulate.chunks import widest
from snnconvert.simulate.frames import Frames
from snnconvert.simulate.kernels.bits import Bits
from snnconvert.simulate.kernels.layout import is_channels_last
from snnconvert.threads import threads

V = TypeVar("V", Tensor, Frames | Spikes)
R = TypeVar("R")
# of the space that is free where temporary files are
DISK_SHARE = 0.5
SMALLEST_FILE = 2**16
# free memory that is kept for the next chunk: many times what a chunk needs, unless one image is large
KEPT_BYTES = 2**30
CHUNK_BYTES = 64 * 2**20
# seconds that a chunk takes
WORTH_A_THREAD = 0.005


def disk_space() -> int:
    """Bytes that files of a calibration may take."""
    return int(DISK_SHARE * shutil.disk_usage(tempfile.gettempdir()).free)


@dataclass(frozen=True)
class _OnDisk:
    """A tensor in a file, in the order that it had in memory."""

    path: Path
    shape: tuple[int, ...]
    dtype: torch.dtype
    channels_last: bool

    def read(self) -> Tensor:
        array = np.fromfile(self.path, dtype=np.uint8)
        flat = torch.from_numpy(array).view(self.dtype)
        if not self.channels_last:
            return flat.view(self.shape)
        count, channels, height, width = self.shape
        return flat.view(count, height, width, channels).permute(0, 3, 1, 2)


class Room:
    """How much memory the live values of all chunks may take, and where the rest goes.

    Args:
        memory: bytes.
    """

    def __init__(self, memory: float) -> None:
        self.memory, self.used, self.count = memory, 0, 0
        self._counting = threading.Lock()
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    def taken(self, tensor: Tensor) -> Tensor | _OnDisk:
        """`tensor`, or where it is kept instead."""
        size = tensor.numel() * tensor.element_size()
        with self._counting:
            if self.used + size <= self.memory or size < SMALLEST_FILE:
                self.used += size
                return tensor
            if self._directory is None:
                self._directory = tempfile.TemporaryDirectory(prefix="snnconvert-")
            self.count += 1
            path = Path(self._directory.name) / str(self.count)
        last = is_channels_last(tensor)
        ordered = tensor.permute(0, 2, 3, 1) if last else tensor.contiguous()
        ordered.reshape(-1).view(torch.uint8).numpy().tofile(path)
        return _OnDisk(path, tuple(tensor.shape), tensor.dtype, last)

    def left(self, kept: Tensor | _OnDisk) -> None:
        """What `taken` gave is not needed any more."""
        if isinstance(kept, _OnDisk):
            kept.path.unlink(missing_ok=True)
        else:
            with self._counting:
                self.used -= kept.numel() * kept.element_size()


class Values(Generic[V]):
    """The stored values of the nodes on some images."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self._kept: dict[fx.Node, tuple[Callable[[Tensor], Any], Tensor | _OnDisk]] = {}
        self._lent: set[fx.Node] = set()

    def lend(self, node: fx.Node, value: V) -> None:
        """Keep a value that somebody else keeps anyway: it takes no room."""
        tensor, wrapped = _unwrapped(value)
        self._kept[node] = (wrapped, tensor)
        self._lent.add(node)

    def __setitem__(self, node: fx.Node, value: V) -> None:
        self.pop(node)
        tensor, wrapped = _unwrapped(value)
        whole = tensor if is_channels_last(tensor) else tensor.contiguous()
        self._kept[node] = (wrapped, self.room.taken(whole))

    def __contains__(self, node: fx.Node) -> bool:
        return node in self._kept

    def __getitem__(self, node: fx.Node) -> V:
        wrapped, kept = self._kept[node]
        value: V = wrapped(kept.read() if isinstance(kept, _OnDisk) else kept)
        return value

    def get(self, node: fx.Node) -> V | None:
        """The value of `node`, None where none is stored."""
        return self[node] if node in self._kept else None

    def pop(self, node: fx.Node) -> None:
        """Drop the value of `node`, if there is one."""
        if node in self._kept:
            _, kept = self._kept.pop(node)
            if node in self._lent:
                self._lent.remove(node)
            else:
                self.room.left(kept)


class Chunk:
    """Some calibration images and the stored values of the nodes on them."""

    def __init__(self, images: Tensor, *, held_out: bool, room: Room | None = None) -> None:
        self.images, self.held_out = images, held_out
        room = room or Room(math.inf)
        self.ann, self.mean = Values[Tensor](room), Values[Tensor](room)
        self.frames: Values[Frames | Spikes] = Values(room)


def made_anew(nodes: Iterable[fx.Node], stored: Collection[fx.Node]) -> set[fx.Node]:
    """Sites that only shift, scale and cut a stored value which they share: the units of a smooth function.

    What the ANN has there is made from that value whenever it is read: it takes more room than the value.
    """
    sharing: dict[fx.Node, list[fx.Node]] = {}
    for site in nodes:
        node = site
        while role_of(site) == Role.SITE and (node is site or role_of(node) == Role.AFFINE) and op_of(node).elementwise:
            (node,) = arguments(node)
            if node in stored:
                sharing.setdefault(node, []).append(site)
                break
    return {site for sites in sharing.values() if len(sites) > 1 for site in sites}


def each(chunks: Sequence[Chunk], found: Callable[[Chunk], R]) -> Iterator[R]:
    """What is `found` on each chunk, in their order; what computing has left free does not add up.

    Chunks side by side, each on one thread, keep as many cores busy as torch may use, which threads inside operators do
    not; and whoever adds up what comes, in its order, gets the same sums on any number of threads. Few results wait.
    """
    workers, inference = min(torch.get_num_threads(), len(chunks)), torch.is_inference_mode_enabled()

    def alone(chunk: Chunk) -> R:
        with torch.inference_mode(inference):
            return found(chunk)

    with threads(1):
        begun = time.perf_counter()
        first = [alone(chunk) for chunk in chunks[:1]]
        small = time.perf_counter() - begun < WORTH_A_THREAD
        for one in chain(first, _side_by_side(chunks[1:], alone, 1 if small else workers)):
            yield one
            hand_back_beyond(KEPT_BYTES)


def _side_by_side(chunks: Sequence[Chunk], found: Callable[[Chunk], R], workers: int) -> Iterator[R]:
    if workers < 2:
        yield from map(found, chunks)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for chunk in chunks:
                waiting.append(pool.submit(found, chunk))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


def chunk_images(graph: fx.GraphModule, frames: int) -> int:
    """Images per chunk, so that all frames of the widest value fit in a fixed amount of memory."""
    return max(1, min(64, CHUNK_BYTES // (4 * widest(graph) * frames)))


def split_images(images: Tensor, size: int, held_out: float, room: Room | None = None) -> list[Chunk]:
    """Chunks of at most `size` images: first those to fit on, then the share held out (none of fewer than 5)."""
    kept = len(images) - (int(len(images) * held_out) if len(images) >= 5 else 0)
    edges = [*range(0, kept, size), *range(kept, len(images), size), len(images)]
    return [Chunk(images[a:b], held_out=a >= kept, room=room) for a, b in pairwise(edges)]


def _unwrapped(value: Any) -> tuple[Tensor, Callable[[Tensor], Any]]:
    """What takes room of a value, and how the value is made of it."""
    if isinstance(value, Tensor):
        return value, lambda tensor: tensor
    if isinstance(value, Frames):
        constant = value.constant
        return value.tensor, lambda tensor: Frames(tensor, constant)
    packed = value.packed
    if isinstance(packed, Bits):
        shell = replace(packed, memory=torch.empty(0, dtype=torch.uint8))
        template = replace(value.template, spikes=shell)
        return packed.memory, lambda tensor: Spikes(replace(shell, memory=tensor), template)
    bare, template = replace(packed, data=torch.empty(0)), value.template
    return packed.data, lambda tensor: Spikes(replace(bare, data=tensor), template)
