"""The kernel for neurons on CUDA devices, without such a device: interpreted, compiled, and replaced where it fails."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from snnconvert.errors import OptionError
from snnconvert.neurons import NEURONS
from snnconvert.simulate import layer_engine
from snnconvert.simulate.kernels import FusedNeurons, choose_fused, fused
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.simulate.step_engine import StepEngine
from snnconvert.study.evaluate import rerun
from tests.simulate.small_networks import pictures, small_snn

ROOT = Path(__file__).parents[2]
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


@needs_triton
def test_in_the_interpreter() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/simulate/fused_in_interpreter.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# arguments that Triton makes constants where they are 1
SMALL = {"elements": 1, "frames": 1, "lead": 1, "threshold_size": 1, "initial_size": 1}
POINTERS = ("current", "threshold", "initial", "spikes", "spike_counts", "unit_counts")
COMPILE = """
import json, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from snnconvert.simulate.kernels.fused_kernel import neuron_layer

pointers, constants, types, capability = json.loads(sys.argv[1])
signature = {name: "*i32" if "counts" in name else "*fp32" for name in pointers} | types
signature = {name: signature.get(name, "constexpr") for name in neuron_layer.arg_names}
target, options = GPUTarget("cuda", capability, 32), {"enable_fp_fusion": False}
made = triton.compile(ASTSource(neuron_layer, signature, constants), target=target, options=options)
assert made.asm["cubin"]
print(made.asm["ptx"])
"""


@needs_triton
@pytest.mark.parametrize(
    ("capability", "model", "size", "constant"),
    [
        (80, "if", "i32", False),
        (80, "ternary-late", "i64", True),
        (80, "signed", "i32", False),
        (90, "ternary", "small", False),
        (90, "burst", "small", True),
        (90, "graded", "i64", False),
    ],
)
def test_compiles_for_devices_that_are_not_here(
    capability: int, model: str, size: str, constant: bool, tmp_path: Path
) -> None:
    constants: dict[str, object] = {
        "model": NEURONS[model].triton,
        "several": not NEURONS[model].planes,
        "constant": constant,
    }
    constants |= {"block": fused.BLOCK} | (SMALL if size == "small" else {})
    types = {name: "i64" if size == "i64" else "i32" for name in SMALL if name not in constants} | {"levels": "fp32"}
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path), "TRITON_HOME": str(tmp_path)}
    job = json.dumps([POINTERS, constants, types, capability])
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, job], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    code = done.stdout
    assert not re.search(r"\bfma\.", code), "v - threshold * n would round once instead of twice"
    divisions = set(re.findall(r"\bdiv\.\S+", code))
    assert divisions == (set() if NEURONS[model].planes else {"div.rn.f32"})
    assert not re.search(r"\b(setp|add|sub|mul)\.\S*ftz", code), "comparisons mend what flushes subnormal numbers"


def failing(error: Exception) -> object:
    def launch(*_: object) -> tuple[Tensor, Tensor]:
        raise error

    return launch


@pytest.mark.parametrize("error", [RuntimeError("no compiler\nat all"), FileNotFoundError("ptxas")], ids=str)
def test_a_kernel_that_fails_is_replaced_and_reported(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNNCONVERT_KERNELS", "torch")
    monkeypatch.setattr(fused, "launch", failing(error))
    monkeypatch.setattr(layer_engine, "choose_fused", lambda _: FusedNeurons())
    (snn, _), x = small_snn(), pictures(5)
    engine = LayerEngine(snn)
    seen, oracle = engine.run(x), StepEngine(snn).run(x)
    assert torch.equal(seen.outputs[0], oracle.outputs[0])
    assert all(torch.equal(seen.spikes[name], counts) for name, counts in oracle.spikes.items())
    (note,) = engine.notes
    assert type(error).__name__ in note
    assert str(error).split("\n", maxsplit=1)[0] in note
    assert "torch computed them instead" in note
    curve = rerun(snn, x, batch_size=2, reference=np.zeros(len(x), np.int64))
    assert curve.notes == (note,)


def test_a_kernel_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*arguments: object) -> tuple[Tensor, Tensor]:
        *_, frames, batch, shape = arguments
        return torch.zeros((frames * batch, *shape)), torch.zeros((2, frames), dtype=torch.int64)  # type: ignore[operator,misc]

    monkeypatch.setenv("SNNCONVERT_KERNELS", "torch")
    monkeypatch.setattr(fused, "launch", wrong)
    (snn, _), x = small_snn(), pictures(2)
    engine = LayerEngine(snn)
    engine.fused = FusedNeurons()
    assert torch.equal(engine.run(x).outputs[0], StepEngine(snn).run(x).outputs[0])
    assert "its if neurons are not those of torch" in engine.notes[0]


def test_memory_that_runs_out_is_no_failure_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "launch", failing(torch.OutOfMemoryError("CUDA out of memory")))
    (snn, _), x = small_snn(), pictures(2)
    engine = LayerEngine(snn)
    engine.fused = FusedNeurons()
    with pytest.raises(torch.OutOfMemoryError):
        engine.run(x)
    assert engine.notes == ()


def test_when_it_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    monkeypatch.delenv("SNNCONVERT_KERNELS", raising=False)
    monkeypatch.setattr("snnconvert.simulate.kernels.triton_available", lambda: True)
    assert isinstance(choose_fused(cuda), FusedNeurons)
    assert choose_fused(torch.device("cpu")) is None
    monkeypatch.setenv("SNNCONVERT_KERNELS", "torch")
    assert choose_fused(cuda) is None
    monkeypatch.setenv("SNNCONVERT_KERNELS", "tritium")
    with pytest.raises(OptionError):
        choose_fused(cuda)
    monkeypatch.delenv("SNNCONVERT_KERNELS")
    monkeypatch.setattr("snnconvert.simulate.kernels.triton_available", lambda: False)
    assert choose_fused(cuda) is None
