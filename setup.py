"""Builds the optional native kernels; all else is declared in pyproject.toml.

Without a working C++ compiler the package installs all the same and simulates with plain torch.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SIMULATE, TRAIN = Path("snnconvert/simulate/kernels"), Path("snnconvert/train")
# `make sanitize` looks for reads and writes out of bounds, and for what C++ leaves undefined; its checks are calls,
# because the compiler takes ten minutes a source to put them in place
SANITIZED = (
    ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"] if os.environ.get("SNNCONVERT_SANITIZE") else []
)
CALLED = ["--param", "asan-instrumentation-with-call-threshold=0"]
GNU_FLAGS = [
    "-std=c++17",
    "-O3",
    "-g0",
    "-ffp-contract=off",  # a fused multiply-add would round differently from the other engines
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    *(["-O1", "-g", *SANITIZED, *CALLED] if SANITIZED else []),
]
# the kernels use vector types of GCC and Clang: MSVC refuses them, and torch takes over
MSVC_FLAGS = ["/std:c++17", "/O2", "/EHsc", "/fp:precise"]


class Build(build_ext):
    """Compiles with the options of the compiler that there is, sources side by side: each takes up to a minute."""

    def build_extensions(self) -> None:
        """Let the compiler run once for every source."""
        compile_all = self.compiler.compile

        def side_by_side(sources: list[str], **options: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return [made for (made,) in pool.map(lambda source: compile_all([source], **options), sources)]

        self.compiler.compile = side_by_side
        super().build_extensions()

    def build_extension(self, ext: Extension) -> None:
        """Choose the options once the compiler is known."""
        msvc = self.compiler.compiler_type == "msvc"
        ext.extra_compile_args = MSVC_FLAGS if msvc else GNU_FLAGS
        ext.extra_link_args = [] if msvc else ["-pthread", *SANITIZED]
        super().build_extension(ext)


def library(place: Path) -> Extension:
    """The library beside a module, from the folder `source` there."""
    return Extension(
        ".".join((*place.parts, "_native")),
        sources=sorted(str(path) for path in (place / "source").glob("*.cpp")),
        depends=sorted(str(path) for path in (place / "source").glob("*.h")),
        language="c++",
        optional=True,
    )


setup(ext_modules=[library(SIMULATE), library(TRAIN)], cmdclass={"build_ext": Build})
