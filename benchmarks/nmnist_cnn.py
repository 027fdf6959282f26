"""Networks that watch recordings of N-MNIST: trained on accumulated frames, converted, and replayed in time.

    python benchmarks/nmnist_cnn.py train              # the bundled zoo:nmnist-cnn, on the 1,000 training recordings
    python benchmarks/nmnist_cnn.py fold 0             # of 5: trained on 800 of them, replayed on the other 200
    python benchmarks/nmnist_cnn.py replay             # the bundled network on the 100 test recordings
    python benchmarks/nmnist_cnn.py memory             # of a replay of 300 ms, 3, 30 and 60 s

Needs the data pack (SNNCONVERT_DATA): nmnist_small.tar.xz, 1,100 recordings of N-MNIST (G. Orchard et
al., 2015, CC BY-SA 4.0), which is unpacked into a temporary folder. Training takes some two minutes on one core. The
test recordings choose nothing: the recipe is fixed, and the last epoch is kept. One JSON line per network goes to
benchmarks/results/events.jsonl; what is there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from nmnist_networks import SCALE, EventCnn, train
from numpy.typing import NDArray

import snnconvert
from snnconvert.data.bundled import FOLDER
from snnconvert.data.datasets import Dataset, load_dataset
from snnconvert.data.moving import over_time_of
from snnconvert.data.preprocessing import Preprocessing

DATA = Path(os.environ.get("SNNCONVERT_DATA", Path(__file__).parents[2] / "shared" / "data"))
RESULTS = Path(__file__).parent / "results" / "events.jsonl"
FOLDER_OF_NETWORKS = Path(tempfile.gettempdir()) / "snnconvert-nmnist-networks"
INPUT = (2, 34, 34)
EPOCHS, FOLDS, MILLISECONDS, SLICE = 100, 5, 300, 15
# the moments at which the original network is asked what it makes of what came by then
MOMENTS = (20, 40, 60, 80, 100, 150, 200, 250, 300)


def recordings() -> Path:
    """The folder of recordings, unpacked where it is not yet."""
    folder = Path(tempfile.gettempdir()) / "snnconvert-nmnist"
    if not (folder / "train1K.txt").exists():
        with tarfile.open(DATA / "nmnist_small.tar.xz") as archive:
            archive.extractall(folder, filter="data")
    return folder


def opened(name: str, events: str) -> Dataset:
    """train1K or test100, cut into steps."""
    plan = Preprocessing(events=events, scale=SCALE)
    return load_dataset(recordings() / f"{name}.txt", preprocessing=plan, input_shape=INPUT)


def slices(data: Dataset) -> NDArray[np.uint8]:
    """Events in slices of SLICE ms, (n, slices, 2, height, width)."""
    moving = over_time_of(data.in_steps(MILLISECONDS // SLICE).images())
    assert moving is not None
    return moving.frames(0, moving.steps).transpose(0, 1).numpy().astype(np.uint8)


def trained(indices: NDArray[np.int64], path: Path, epochs: int) -> None:
    """Train on some of the training recordings, and write the network."""
    data = opened("train1K", f"window:{SLICE}").subset(indices)
    assert data.labels is not None
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = EventCnn()
    train(network, slices(data), data.labels, epochs)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(network.onnx(), path)


def replayed(path: Path, evaluation: Dataset, calibration: Dataset, options: dict[str, Any]) -> dict[str, Any]:
    """Convert and replay; a JSON-able row."""
    start = time.process_time()
    made = snnconvert.convert_model(
        path,
        data=(list(evaluation.source.read(evaluation.positions.tolist())), evaluation.labels),
        calibration_data=list(calibration.source.read(calibration.positions.tolist())),
        events="window:1",
        scale=SCALE,
        timesteps=MILLISECONDS,
        **options,
    )
    report = made.report
    curve = report["fit_curve"]
    plan = evaluation.in_steps(MILLISECONDS).arrangement
    so_far = by_then(path, evaluation)
    assert plan.steps == MILLISECONDS
    return {
        "recordings": report["evaluation"]["samples"],
        "ann": report["ann"]["accuracy"],
        "snn": curve["accuracy"][-1],
        "agreement": curve["agreement"][-1],
        "paired": report["analysis"]["paired"],
        "holds_from_ms": report["holds_from"],
        "at": {ms: curve["accuracy"][ms - 1] for ms in MOMENTS},
        "agreement_at": {ms: curve["agreement"][ms - 1] for ms in MOMENTS},
        "ann_at": so_far,
        "spikes": curve["spikes_per_image"][-1],
        "input_events": float(np.mean([len(one) for one in evaluation.source.read(evaluation.positions.tolist())])),
        "neuron": made.snn.neuron.model,
        "seconds": round(time.process_time() - start, 1),
    }


def by_then(path: Path, data: Dataset) -> dict[int, float]:
    """Accuracy of the original network on what came until each moment, scaled to a whole recording."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    moving = over_time_of(data.in_steps(MILLISECONDS).images())
    assert moving is not None
    assert data.labels is not None
    found, seen, before = {}, np.zeros((len(data), *INPUT), np.float32), 0
    for moment in MOMENTS:
        seen += moving.frames(before, moment).sum(0).numpy()
        before = moment
        logits = session.run(None, {"image": seen * (MILLISECONDS / moment / SCALE)})[0]
        found[moment] = 100 * float((logits.argmax(1) == data.labels).mean())
    return found


def known() -> list[dict[str, Any]]:
    """Rows of earlier runs."""
    return [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()] if RESULTS.is_file() else []


def write(row: dict[str, Any]) -> None:
    """Append a row, and print it."""
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row, indent=1))


def converted_apart(path: Path) -> None:
    """Convert the bundled network in a process of its own, whose memory then does not count."""
    child = os.fork()
    if not child:
        training = opened("train1K", "window:1").subset(np.arange(100))
        given = list(training.source.read(training.positions.tolist()))
        options = {"events": "window:1", "scale": SCALE, "timesteps": MILLISECONDS, "neuron": "ternary"}
        made = snnconvert.convert_model(
            FOLDER / "nmnist_cnn.onnx", data=given[:10], calibration_data=given, calibration="mse", **options
        )
        made.snn.save(path)
        os._exit(0)
    os.waitpid(child, 0)


def memory() -> None:
    """Print the peak memory of processes that replay one recording of so many milliseconds."""
    path = FOLDER_OF_NETWORKS / "memory.snn"
    if not path.exists():
        converted_apart(path)
    for milliseconds in (MILLISECONDS, 10 * MILLISECONDS, 100 * MILLISECONDS, 200 * MILLISECONDS):
        child = os.fork()
        if not child:
            snn = snnconvert.load(path)
            events = opened("test100", "window:1").source.read([0])[0]
            rounds = [events] * (milliseconds // MILLISECONDS)
            long = np.concatenate(rounds)
            period = 1000 * MILLISECONDS
            kept = events["t"] - events["t"][0] < period
            long = np.concatenate([events[kept]] * len(rounds))
            long["t"] += np.repeat(np.arange(len(rounds)) * period, int(kept.sum()))
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            snn.simulate(snn.prepare([long], steps=milliseconds))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(f"{milliseconds} ms: {before / 1024:.0f} MiB before, {peak / 1024:.0f} MiB at most", flush=True)
            os._exit(0)
        os.waitpid(child, 0)


def main() -> None:
    """One piece of the work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "fold", "replay", "memory"])
    parser.add_argument("fold", nargs="?", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--neuron", default="ternary")
    parser.add_argument("--calibration", default="reconstruct")
    parser.add_argument("--calibration-samples", type=int, default=100)
    parser.add_argument("--only-train", action="store_true")
    given = parser.parse_args()
    everything = np.arange(1000)
    held = everything % FOLDS == given.fold
    path = FOLDER_OF_NETWORKS / f"fold{given.fold}.onnx" if given.what == "fold" else FOLDER / "nmnist_cnn.onnx"
    if given.what == "memory":
        memory()
        return
    if given.what == "train" or (given.what == "fold" and not path.exists()):
        trained(everything if given.what == "train" else everything[~held], path, given.epochs)
    if given.what == "train" or given.only_train:
        print(by_then(path, opened("test100", "window:1")))
        return
    options = {name: getattr(given, name) for name in ("neuron", "calibration", "calibration_samples")}
    row = {"network": path.stem, **options}
    if any(one | row == one for one in known()):
        return
    training = opened("train1K", "window:1")
    tested = training.subset(everything[held]) if given.what == "fold" else opened("test100", "window:1")
    calibration = training.subset(everything[~held] if given.what == "fold" else everything)
    write({**row, **replayed(path, tested, calibration, options)})


if __name__ == "__main__":
    main()
