"""The library that steps neurons while they are trained, by ctypes; None where it was not built."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from ctypes import Structure, byref, c_double, c_int64, c_void_p
from typing import Any

import torch
from torch import Tensor

from snnconvert.simulate.kernels.native import library_beside

VERSION = 2
STORAGE = {torch.float32: 0, torch.bfloat16: 1, torch.float64: 2}


class _Neurons(Structure):
    """As in source/neurons.cpp."""

    _fields_ = (
        *((name, c_int64) for name in ("frames", "wait", "batch", "size", "constant", "storage", "memory", "triangle")),
        ("width", c_double),
        *((name, c_void_p) for name in ("current", "threshold", "initial", "out", "gradient")),
        *((name, c_void_p) for name in ("current_gradient", "threshold_gradient", "initial_gradient")),
        ("first", c_int64),
        ("last", c_int64),
    )


class _Active(Structure):
    """As in source/neurons.cpp."""

    _fields_ = (
        *((name, c_int64) for name in ("frames", "batch", "inputs", "outputs", "storage", "count", "before_count")),
        ("slope", c_double),
        *((name, c_void_p) for name in ("active", "before", "gradient", "weight", "sent", "change")),
        *((name, c_void_p) for name in ("weight_gradient", "before_gradient")),
    )


class Native:
    """The loaded library."""

    def __init__(self, library: Any) -> None:
        self.library = library

    def forward(self, out: Tensor, **given: Any) -> None:
        """Write what neurons send to `out`; see `_Neurons` for what is given, tensors as they lie in memory."""
        self._run(self.library.snnconvert_train_forward, given | {"out": out})

    def backward(self, threshold_gradient: Tensor, initial_gradient: Tensor, **given: Any) -> None:
        """Write the current's gradient, and add to those of thresholds and starts, (size,)."""
        parts = min(torch.get_num_threads(), given["batch"])
        sums = [torch.zeros(2, parts, threshold_gradient.numel(), dtype=threshold_gradient.dtype)]
        for part, row in enumerate(sums[0].unbind(1)):
            own = {"threshold_gradient": row[0], "initial_gradient": row[1]}
            sums.append(self._prepared(given | own, part, parts))
        self._call(self.library.snnconvert_train_backward, sums[1:])
        threshold_gradient += sums[0][0].sum(0)
        initial_gradient += sums[0][1].sum(0)

    def _run(self, function: Any, given: dict[str, Any]) -> None:
        parts = min(torch.get_num_threads(), given["batch"])
        self._call(function, [self._prepared(given, part, parts) for part in range(parts)])

    def sparse(self, **given: Any) -> None:
        """Go back through a layer of which few places are active; see `_Active`."""
        values = {name: one.data_ptr() if isinstance(one, Tensor) else one for name, one in given.items()}
        self.library.snnconvert_train_sparse(byref(_Active(**values)))

    @staticmethod
    def _prepared(given: dict[str, Any], part: int, parts: int) -> Any:
        """A share of the batch, as the library is told of it."""
        batch = given["batch"]
        values = {name: one.data_ptr() if isinstance(one, Tensor) else one for name, one in given.items()}
        return _Neurons(**values, first=batch * part // parts, last=batch * (part + 1) // parts)

    @staticmethod
    def _call(function: Any, shares: list[Any]) -> None:
        """Every share on a thread of its own: foreign calls do not hold the interpreter."""
        if len(shares) == 1:
            function(byref(shares[0]))
            return
        with ThreadPoolExecutor(len(shares)) as pool:
            for done in [pool.submit(function, byref(share)) for share in shares]:
                done.result()


@functools.cache
def load() -> Native | None:
    """The library beside this file, or None where there is none that loads."""
    entries = dict.fromkeys(f"snnconvert_train_{name}" for name in ("forward", "backward", "sparse"))
    library = library_beside(__file__, "snnconvert_train_version", VERSION, entries)
    return None if library is None else Native(library)
