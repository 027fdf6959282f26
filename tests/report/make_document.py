"""A realistic synthetic report (numbers shaped like a ResNet-20 on CIFAR-10), and ways to bend it."""

from __future__ import annotations

import math
import random
from typing import Any

from snnconvert.report.document import assemble

LAYERS = 19


def make_parts(
    *, timesteps: int = 32, samples: int = 1000, labelled: bool = True, layers: int = LAYERS, first_output: int = 1
) -> dict[str, Any]:
    """Keyword arguments for `assemble`; deterministic."""
    rng = random.Random(7)
    steps = list(range(1, timesteps + 1))
    final, ann_correct = 0.908, round(0.912 * samples)
    share = [1 - math.exp(-(((t - first_output + 1) / 3.1) ** 0.85)) if t >= first_output else None for t in steps]
    correct = [None if s is None else round(samples * final * (0.1 + 0.9 * s)) for s in share]
    agreement = [None if s is None else 100 * (0.1 + 0.87 * s) for s in share]
    return {
        "tool": {
            "version": "0.1.0",
            "command_line": "snnconvert convert resnet20.onnx",
            "python": "3.11.9",
            "torch": "2.13.0",
        },
        "model": {
            "name": "resnet20",
            "location": "models/resnet20.onnx",
            "sha256": "ab" * 32,
            "format": "onnx",
            "input_shape": [3, 32, 32],
            "sites": layers,
            "parameters": 269722,
            "notes": ["batch norm folded into 19 convolutions"],
        },
        "ann": {"correct": ann_correct if labelled else None},
        "evaluation": {
            "samples": samples,
            "labelled": labelled,
            "source": "cifar10_test.npz",
            "fingerprint": "sha256:0123456789abcdef",
            "excluded_calibration": 0,
            "classes": 10,
            "notes": [],
        },
        "calibration": {
            "method": "closed_loop",
            "samples": 256,
            "source": "cifar10_train.npz",
            "fingerprint": "sha256:fedcba9876543210",
            "options": {"ridge": 0.01, "factors": [0.5, 0.7, 1.0]},
            "seed": 0,
        },
        "preprocessing": {
            "scale": "1/255",
            "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
            "layout": "NCHW",
        },
        "schedule": {
            "kind": "streaming",
            "timesteps": timesteps,
            "wait": 0,
            "window": timesteps,
            "phases": None,
            "depth": layers,
        },
        "neuron": {"model": "signed_if", "levels": 1, "initial": "threshold / 2"},
        "latency": {"window": timesteps, "first_output": first_output, "total": timesteps},
        "fit_curve": {
            "timesteps": steps,
            **({"correct": correct} if labelled else {"accuracy": [None] * timesteps}),
            "agreement": agreement,
            "spikes_per_image": [2350.0 * t for t in steps],
        },
        "layers": [_layer(index, layers, timesteps, rng) for index in range(layers)],
        "candidates": [
            {
                "name": f"{neuron}, wait {wait}",
                "eligible": wait == 0,
                "reason": None if wait == 0 else "latency over the budget",
                "options": {"neuron": neuron, "wait": wait},
                "agreement": 90.0 + 3 * (neuron == "signed_if") + wait,
                "timesteps": timesteps + 19 * wait,
                "spikes_per_image": 70000.0 + 9000 * wait,
                "chosen": neuron == "signed_if" and wait == 0,
            }
            for neuron in ("if", "signed_if")
            for wait in (0, 1)
        ],
        "comparison": {"runtime": "onnxruntime", "max_difference": 3.1e-6, "tolerance": 1e-3, "samples": 16},
        "plan": [
            {
                "site": f"site{index}",
                "origin": f"layer{index} (Relu)",
                "depth": index,
                "kind": kind,
                "integrates": [[index, index + 4]],
                "emits": [[index + 4, index + 8]] if kind != "read-out" else [],
            }
            for index, kind in enumerate(("neuron", "synchronous", "read-out"), 1)
        ],
        "ablation": _ablation(labelled=labelled),
        "anytime": _anytime(timesteps, labelled=labelled) if timesteps > 2 else None,
        "paired": (9 + ann_correct - correct[-1], 9) if labelled and samples >= 100 else None,
        "timings": {"open": 0.41, "calibrate": 62.3, "simulate": 38.9, "report": 1.2},
        "next_commands": ["snnconvert run resnet20.snn --images photos/"],
    }


def _ablation(*, labelled: bool) -> dict[str, Any]:
    arms = [("bistable", True, 90.0), ("bistable", False, 80.0), ("plain phase coding", False, 40.0)]
    return {
        "images": 20,
        "timesteps": 100,
        "left_out": None,
        "before": "streaming integrate-and-fire",
        "arms": [
            {
                "neurons": name,
                "synchronous": synchronous,
                "accuracy": right if labelled else None,
                "agreement": right + 5,
                "spikes_per_image": 1234.0,
            }
            for name, synchronous, right in arms
        ],
        "layers": [
            {
                "name": f"site{index}",
                "origin": f"layer{index} (Relu)",
                "neurons": 100 * index,
                "before": {"neurons": 0.1 * index, "units": None, "unprovoked": 0.05},
                "after": {"neurons": 0.01 * index, "units": 0.02, "unprovoked": 0.0},
            }
            for index in (1, 2)
        ],
    }


def _anytime(timesteps: int, *, labelled: bool) -> dict[str, Any]:
    """Read at half of the steps, in vain at the first, and at the end."""

    def figures(right: float | None) -> dict[str, Any]:
        known = labelled and right is not None
        band = [right - 2, right + 2] if known and right is not None else None
        return {
            "accuracy": right if known else None,
            "accuracy_interval": band,
            "agreement": None if right is None else right + 1,
            "spikes_per_image": 5.0,
        }

    rows = [
        {"t": t, "this": figures(this), "own": {**figures(own), "same": t == timesteps, "read_from": 0}}
        for t, this, own in ((1, None, 60.0), (timesteps // 2, 70.0, 80.0), (timesteps, 90.0, 90.0))
    ]
    return {"calibrated_for": [timesteps], "rows": rows}


def _layer(index: int, layers: int, timesteps: int, rng: random.Random) -> dict[str, Any]:
    omega = 1.5 + 6 * rng.random()
    times = sorted({1, 2, 4, 8, 16, 32, 64, timesteps} & set(range(1, timesteps + 1)))
    late = 1 + 1.2 * index / layers
    fit = [{"t": t, "k": 2 * omega / t * min(late * 0.8, 2.2) / (1 + (t / (2 + index)) ** 1.1)} for t in times]
    neurons = (16384, 8192, 4096)[min(2, index * 3 // layers)]
    rate = 0.05 + 0.15 * rng.random()
    stage, block = divmod(index, 6)
    return {
        "name": f"layer{stage + 1}_{block}_relu",
        "origin": f"layer{stage + 1}.{block // 2}.relu{block % 2 + 1} (Relu)",
        "depth": index + 1,
        "channels": neurons // 256,
        "neurons": neurons,
        "threshold": {"min": 0.21 + 0.1 * rng.random(), "median": 0.9, "max": 2.4},
        "firing_rate": rate,
        "spikes_per_image": rate * neurons * timesteps,
        "dead_share": 0.1 * rng.random(),
        "first_spike": {"p10": 1, "p50": min(3, timesteps), "p90": min(11, timesteps), "silent_share": 0.4},
        "saturated_share": 0.01 * rng.random(),
        "sin_share": 0.15 * rng.random(),
        "omega": omega,
        "fit": fit,
    }


def make_document(**options: Any) -> dict[str, Any]:
    """A checked report; options as in `make_parts`."""
    return assemble(make_parts(**options))
