"""Kernels for spikes: a small native library where it was built, plain torch otherwise.

The environment variable SNNCONVERT_KERNELS chooses: `native` or `torch`; unset, native is taken when it is there. Both
give the same spikes. On a CUDA device the place of the native library is taken by a kernel for neurons, where there is
Triton.
"""

from __future__ import annotations

import os

import torch

from snnconvert.errors import OptionError
from snnconvert.simulate.kernels.fused import FusedNeurons, triton_available
from snnconvert.simulate.kernels.native import Native, load

__all__ = ["FusedNeurons", "Native", "choose", "choose_fused", "missing", "native_available"]

VARIABLE = "SNNCONVERT_KERNELS"


def native_available() -> bool:
    """Whether the native library was built and can be loaded."""
    return load() is not None


def missing() -> bool:
    """Whether torch stands in for native kernels that nobody declined."""
    return not os.environ.get(VARIABLE) and load() is None


def choose() -> Native | None:
    """The native kernels, or None for torch.

    Raises:
        OptionError: if SNNCONVERT_KERNELS has another value, or asks for native kernels that were not built.
    """
    asked = _asked()
    if asked == "torch":
        return None
    found = load()
    if found is None and asked == "native":
        raise OptionError(
            f"{VARIABLE}=native, but the native kernels were not built",
            hint="install a C++ compiler and reinstall snnconvert, or unset the variable",
        )
    return found


def choose_fused(device: torch.device) -> FusedNeurons | None:
    """The kernel for neurons on `device`, or None for torch.

    Raises:
        OptionError: if SNNCONVERT_KERNELS has another value.
    """
    return FusedNeurons() if device.type == "cuda" and _asked() != "torch" and triton_available() else None


def _asked() -> str:
    asked = os.environ.get(VARIABLE, "")
    if asked not in ("", "native", "torch"):
        raise OptionError(f"{VARIABLE}={asked!r} is not known", hint="use native or torch, or unset it")
    return asked
