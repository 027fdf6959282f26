"""What conversions give, as digests: the safety net of every change that should not change results.

    python benchmarks/digests.py record            # a few minutes on two cores: before a change
    python benchmarks/digests.py check             # after it: 0 if all are equal, 1 and a table of differences if not
    python benchmarks/digests.py check --only resnet --only bistable      # cases whose name contains both words

Both bundled networks and eight small files of the data pack are converted with one thread: every neuron and schedule
with thresholds from `mse` and from `reconstruct`, every calibration method, at T = 4 and 16. Three things are kept of
each: a digest of the spiking network (kinds, fields, edges, every tensor, and when it answers), one of the figures
(accuracy, agreement, spikes and operations at every step), and one of the whole report without times and versions. A
refusal is a result like any other; of it the message is kept.

Digests hold for one processor and one version of torch (float32 calibration rounds differently elsewhere); both are
stored with them, and `check` says it when they differ, instead of failing. The files of the data pack are looked for at
SNNCONVERT_DATA or ../shared/data; without it only the bundled networks run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from snnconvert.data.preprocessing import Preprocessing
from snnconvert.errors import SnnConvertError
from snnconvert.graph.dialect import arguments, op_of, output_nodes
from snnconvert.graph.types import Snn
from snnconvert.pipeline import Request, run
from snnconvert.report.document import plain
from snnconvert.report.from_run import document_of

DATA = Path(os.environ.get("SNNCONVERT_DATA", Path(__file__).parents[2] / "shared" / "data"))
RESULTS = Path(__file__).parent / "results" / "digests.json"
UNIT = {"scale": 255.0}
CIFAR = UNIT | {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2471, 0.2435, 0.2616)}
# name: file, data set, preprocessing
NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "digits-cnn": ("zoo:digits-cnn", "", {}),
    "digits-resnet": ("zoo:digits-resnet", "", {}),
    "mlp": ("mnist-net_256x2.onnx", "mnist", UNIT),
    "sigmoid-mlp": ("eran_ffnnSIGMOID_6x200.onnx", "mnist", UNIT),
    "lenet5": ("snntb_lenet5_98.96.onnx", "mnist", UNIT),
    "average-pool": ("verivital_Convnet_avgpool.onnx", "mnist", UNIT),
    "sri-resnet": ("sri_resnet_a.onnx", "cifar10", CIFAR),
    "mlperf-resnet": ("mlperf_tiny_pretrainedResnet.onnx", "cifar10", {"scale": 1.0}),
    "keyword-cnn": ("mlperf_tiny_kws_ref_model_float32.onnx", "", {}),
    "vit": ("vit_pgd_2_3_16.onnx", "cifar10", CIFAR),
}
STEPS = (4, 16)
# its units are fitted anew in every conversion, which takes most of the time
SLOW = {"sigmoid-mlp": ("if, mse", "if, reconstruct", "ternary, mse", "bistable, mse", "auto")}
FAST = {"calibration": "mse", "schedule": "streaming"}
CASES: dict[str, dict[str, Any]] = {
    **{f"{neuron}, mse": FAST | {"neuron": neuron} for neuron in ("if", "ternary", "ternary-late", "burst", "graded")},
    **{
        f"{neuron}, reconstruct": FAST | {"neuron": neuron, "calibration": "reconstruct"}
        for neuron in ("if", "ternary", "graded")
    },
    **{
        f"{schedule}, {calibration}": {"calibration": calibration, "schedule": schedule}
        for schedule in ("wait", "bistable")
        for calibration in ("mse", "reconstruct")
    },
    **{
        method: FAST | {"calibration": method}
        for method in ("rnl", "percentile", "robust-norm", "local-threshold-balancing", "snn-calibration-light")
    },
    "auto": {"calibration": "mse", "schedule": "auto", "neuron": "auto"},
    "uniform phases": FAST | {"schedule": "bistable", "window": 2, "phases": "uniform"},
    "encoder": FAST | {"input_encoder": "spiking"},
    "early exit": FAST | {"early_exit": 0.9},
    "int8": FAST | {"precision": "int8"},
}


def request_of(network: str, case: str, steps: int) -> Request | None:
    """What is asked for; None where the data pack is not there."""
    file, data, preprocessing = NETWORKS[network]
    common: dict[str, Any] = {"timesteps": steps, "calibration_samples": 48, "limit": 48, **CASES[case]}
    if file.startswith("zoo:"):
        return Request(model=file, **common)
    if not (DATA / "models" / file).is_file():
        return None
    if data:
        common |= {"data": str(DATA / f"{data}_test.npz"), "calibration_data": str(DATA / f"{data}_train_small.npz")}
    return Request(model=str(DATA / "models" / file), preprocessing=Preprocessing(**preprocessing), **common)


def network_of(snn: Snn) -> str:
    """Digest of a spiking network: what it computes, not how it is stored."""
    total = hashlib.sha256()
    for node in snn.graph.graph.nodes:
        if node.op != "call_module":
            continue
        op = op_of(node)
        row = [node.name, type(op).__name__, op.arguments(), [source.name for source in arguments(node)]]
        total.update(json.dumps(row, sort_keys=True, default=list).encode())
        for name, tensor in sorted(op.named_buffers()):
            total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            total.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    schedule = snn.schedule
    time_of = [schedule.describe(), schedule.timesteps, schedule.depth, schedule.levels, schedule.initial]
    total.update(json.dumps([*time_of, schedule.answer_steps, schedule.intervals(1)]).encode())
    total.update(json.dumps([node.name for node in output_nodes(snn.graph)]).encode())
    return total.hexdigest()[:16]


def digest(content: Any) -> str:
    """sha256 of JSON, shortened."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


_CURVE = ("timesteps", "accuracy", "agreement", "spikes_per_image", "accuracy_interval")


def figures_of(document: dict[str, Any]) -> Any:
    """The figures that a user reads, wherever the report keeps them."""
    energy = document["energy"] or {}
    over_time = energy.get("over_time") or {}
    return [
        {name: document["ann"][name] for name in ("accuracy", "correct")},
        {name: document["fit_curve"][name] for name in _CURVE},
        {name: step for name, step in document["latency"].items() if name != "asked"},  # no figure
        energy.get("operations"),
        [over_time.get(name) for name in ("spikes", "snn_additions", "snn_multiplications", "neuron_updates")],
        [[row["name"], row["spikes_per_image"]] for row in document["layers"]],
    ]


def converted(job: tuple[str, str, int]) -> tuple[str, dict[str, Any]]:
    """One case, and what came of it."""
    network, case, steps = job
    torch.set_num_threads(1)
    name, request = f"{network} T={steps} {case}", request_of(network, case, steps)
    assert request is not None
    started = time.perf_counter()
    try:
        outcome = run(request)
        document = plain(document_of(outcome, command_line="", next_commands=()))
    except SnnConvertError as error:
        return name, {"refused": error.message, "seconds": round(time.perf_counter() - started, 1)}
    document = {key: value for key, value in document.items() if key not in ("timings", "tool")}
    document["model"] = {key: value for key, value in document["model"].items() if key != "location"}
    return name, {
        "network": network_of(outcome.snn),
        "figures": digest(figures_of(document)),
        "report": digest(document),
        "seconds": round(time.perf_counter() - started, 1),
    }


def machine() -> dict[str, str]:
    """What the digests hold for."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    return {"processor": processor, "torch": torch.__version__, "isa": torch.backends.cpu.get_cpu_capability()}


def measured(words: Iterable[str], processes: int) -> dict[str, dict[str, Any]]:
    """All cases whose name contains all `words`."""
    jobs = [(network, case, steps) for network in NETWORKS for case in SLOW.get(network, CASES) for steps in STEPS]
    jobs = [
        (network, case, steps)
        for network, case, steps in jobs
        if all(word in f"{network} T={steps} {case}" for word in words) and request_of(network, case, steps)
    ]
    found: dict[str, dict[str, Any]] = {}
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for count, (name, row) in enumerate(pool.imap_unordered(converted, jobs), 1):
            found[name] = row
            print(f"\r{count} of {len(jobs)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return dict(sorted(found.items()))


def compared(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> list[str]:
    """A line per difference."""
    lines = []
    for name, row in after.items():
        old = before.get(name)
        if old is None:
            lines.append(f"{name}: not recorded before")
            continue
        changed = [key for key in ("refused", "network", "figures", "report") if old.get(key) != row.get(key)]
        if changed:
            told = f": {old.get('refused')!r} became {row.get('refused')!r}" if "refused" in changed else ""
            lines.append(f"{name}: {', '.join(changed)}{told}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", choices=("record", "check"))
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="cases that contain every WORD")
    parser.add_argument("--file", type=Path, default=RESULTS)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    started = time.perf_counter()
    cases = measured(arguments.only, arguments.processes)
    print(f"{len(cases)} cases in {time.perf_counter() - started:.0f} s")
    stored: dict[str, Any] = json.loads(arguments.file.read_text()) if arguments.file.is_file() else {"cases": {}}
    if arguments.what == "record":
        kept = stored["cases"] if arguments.only else {}
        content = {"machine": machine(), "cases": dict(sorted({**kept, **cases}.items()))}
        arguments.file.write_text(json.dumps(content, indent=1) + "\n")
        return 0
    lines = compared(stored["cases"], cases)
    print("\n".join(lines) or "all equal")
    if stored.get("machine") != machine():
        print(f"recorded on {stored.get('machine')}, run on {machine()}: differences may be those of the machine")
        return 0
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
