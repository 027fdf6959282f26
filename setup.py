"""Builds the optional native kernels; all else is declared in pyproject.toml.

Without a working C++ compiler the package installs all the same and simulates with plain torch.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from setuptools import Extension, setup

SOURCE = Path("snnconvert/simulate/kernels/source")
# `make sanitize` looks for reads and writes out of bounds, and for what C++ leaves undefined
SANITIZED = (
    ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"] if os.environ.get("SNNCONVERT_SANITIZE") else []
)
WINDOWS = sys.platform == "win32"  # the kernels use vector types of GCC and Clang: MSVC fails, and torch takes over

native = Extension(
    "snnconvert.simulate.kernels._native",
    sources=sorted(str(path) for path in SOURCE.glob("*.cpp")),
    depends=sorted(str(path) for path in SOURCE.glob("*.h")),
    language="c++",
    optional=True,
    extra_compile_args=[]
    if WINDOWS
    # no contraction to fused multiply-add: it would round differently from the other engines
    else [
        "-std=c++17",
        "-O3",
        "-g0",
        "-ffp-contract=off",
        "-fno-math-errno",
        "-fno-trapping-math",
        "-fvisibility=hidden",
        *(["-O1", "-g", *SANITIZED] if SANITIZED else []),
    ],
    extra_link_args=[] if WINDOWS else ["-pthread", *SANITIZED],
)

setup(ext_modules=[native])
