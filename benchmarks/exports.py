"""Every way out of the tool for seven networks, run in the program that reads it: docs/exports.md has the table.

    python benchmarks/exports.py                                # what is missing in benchmarks/results/exports.json
    python benchmarks/exports.py --row resnet20 --column "onnx step" --again
    make readers                                                # the readers of NIR, each in an environment of its own

Each network is converted once (streaming; T = 16, MobileNet 32 with ternary neurons; for windows bistable with one
window of 4 steps), kept in build/exports, and exported by every row of EXPORTERS that has something to run it. A cell
counts the spikes, of 64 images and every neuron and step, in which that program differs from this package's engine on
the exported network, and the accuracy in that program on up to 1,000 images (ImageNet 300), as many as fit into
--seconds. Models, data and preprocessing are those of benchmarks/zoo.toml and of the package. Readers of NIR are looked
for in --environments, in folders of their names. Ends with 1 if a spike differs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snnconvert.compile.precision import in_precision
from snnconvert.data.datasets import Dataset
from snnconvert.data.selection import images_for
from snnconvert.errors import SnnConvertError
from snnconvert.exporters import EXPORTERS, Export, exporter_of
from snnconvert.exporters.nir_file import READERS
from snnconvert.exporters.task import Reader, Recording, Task, Written
from snnconvert.exporters.verify import MOST_AT_ONCE, compare
from snnconvert.graph.checkpoint import load_snn, save_snn
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Snn
from snnconvert.pipeline import Request, run
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.zoo.manifest import load_manifest

HERE = Path(__file__).parent
RESULTS, PAGE, BUILT = (
    HERE / "results" / "exports.json",
    HERE.parent / "docs" / "exports.md",
    HERE.parent / "build" / "exports",
)
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
SPIKES_ON, WINDOW = 64, 4
# spikes that a process may hand back, and the environment of the reader that has none of its name
MOST_PLACES, HOMES = 2**28, {"primitive": "norse"}
# name in the table, and of the model in benchmarks/zoo.toml or of the bundled one
ROWS = {
    "digits-cnn": "zoo:digits-cnn",
    "digits-resnet": "zoo:digits-resnet",
    "lenet5": "snntb_lenet5_98.96",
    "mlperf_tiny": "mlperf_tiny_pretrainedResnet",
    "sri_resnet_a": "sri_resnet_a",
    "resnet20": "resnet20",
    "mobilenet_v1_0.25": "mobilenet_v1_0.25_128_quant",
}


@dataclass(frozen=True)
class Column:
    """A way out: the row of EXPORTERS, its form, its own options, and the precision of the network."""

    name: str
    to: str
    form: str | None = None
    precision: str = "float32"
    windowed: bool = False
    reader: str | None = None

    def asked(self, environments: Path) -> Export:
        """As options."""
        if self.reader is None:
            return Export(self.to, self.form)
        python = environments / HOMES.get(self.reader, self.reader) / "bin" / "python"
        return Export(self.to, self.form, reader=self.reader, python=str(python.absolute()))


def columns() -> Iterator[Column]:
    """One for every form or reader of every exporter that can be run, and one for 8-bit weights in ONNX."""
    for to, row in EXPORTERS.items():
        if "reader" in row.options:
            for reader in READERS:
                yield Column(f"{to} {reader}", to, reader=reader)
            continue
        for form in row.forms or (None,) if row.reader else ():
            if form == "ann":  # sends no spikes
                continue
            yield Column(to if form is None else f"{to} {form}", to, form, windowed=form == "window")
    yield Column("onnx int8", "onnx", "step", precision="int8")


def request_for(row: str, timesteps: int | None, limit: int) -> Request:
    """What converts a row; without `timesteps` one window, long enough for its depth."""
    source = ROWS[row]
    if source.startswith("zoo:"):
        options: dict[str, Any] = {"model": source}
    else:
        (entry,) = load_manifest(HERE / "zoo.toml").only((source,)).entries
        options = {"model": entry.source, **entry.options, "calibration": "mse"}
    options |= {
        "limit": limit,
        "schedule": "streaming",
        "calibration_samples": min(256, options.get("calibration_samples", 256)),
    }
    if timesteps is None:
        return Request(**{**options, "neuron": "if", "timesteps": 400})
    return Request(**{**options, "timesteps": timesteps})


def network(row: str, *, windowed: bool) -> Snn:
    """A row's network, converted once."""
    path = BUILT / f"{row}-{'window' if windowed else 'streaming'}.snn"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        mobile = row.startswith("mobilenet")
        asked = request_for(row, 32 if mobile else 16, 32)
        if windowed:
            depth = max(site_depths(network(row, windowed=False).graph).values())
            options = {"schedule": "bistable", "neuron": "if", "window": WINDOW, "timesteps": (depth + 1) * WINDOW}
            asked = replace(asked, **options)
        elif mobile:
            asked = replace(asked, neuron="ternary")
        save_snn(run(asked).snn, path, original=False)
    return load_snn(path)


def cell(row: str, column: Column, given: argparse.Namespace) -> dict[str, Any]:
    """What one export does, or why it cannot be."""
    snn = in_precision(network(row, windowed=column.windowed), column.precision)
    asked = column.asked(given.environments)
    most = min(300, given.images) if row.startswith("mobilenet") else given.images
    data = images_for(snn, str(request_for(row, 1, 1).data or ROWS[row]), most)
    first = data.subset(np.arange(SPIKES_ON))
    with tempfile.TemporaryDirectory() as folder:
        exporter = EXPORTERS[column.to]
        try:
            exporter_of(asked)
            own = {name: getattr(asked, name) for name in exporter.options}
            task = Task(snn, Path(folder) / f"m{exporter.suffix}", column.form or "", own, first.images())
            written = exporter.write(task)
        except SnnConvertError as error:
            return {"why": "; ".join((error.message, *map(str, error.causes[:1])))}
        reader = exporter.read(task, written)
        found = compare(written.network, reader, first.images(), first.labels, engine=written.engine)
        at_once = MOST_AT_ONCE
        if column.reader is not None:  # a process for each batch, which takes seconds to start
            at_once = max(MOST_AT_ONCE, MOST_PLACES * SPIKES_ON // found.compared)
        answers = _answers(snn, written, reader, data, at_once=at_once, seconds=given.seconds)
    return {
        "differing": found.total,
        "compared": found.compared,
        "spikes": found.spikes,
        "logits": found.logits,
        **answers,
        "timesteps": snn.schedule.timesteps,
    }


def _answers(
    snn: Snn, written: Written, reader: Reader, data: Dataset, *, at_once: int, seconds: float
) -> dict[str, Any]:
    """How many images the reader answers rightly, as our engine on the exported network, and as the checkpoint."""
    whole = _engine(snn)
    ours = written.engine or (whole if written.network is snn else _engine(written.network))
    right, same, done, agreed, taken = 0, 0, 0, 0, 0.0
    while done < len(data) and taken < seconds:
        part = np.arange(done, min(done + at_once, len(data)))
        batch, labels = data.images(part), torch.from_numpy(np.asarray(data.labels)[part])
        before = time.perf_counter()
        answers = _decided(reader(batch))
        taken += time.perf_counter() - before
        found = _decided(ours(batch))
        agreed += int((answers == found).sum())
        same += int((answers == (found if ours is whole else _decided(whole(batch)))).sum())
        right += int((answers == labels).sum())
        done += len(batch)
    return {
        "images": done,
        "accuracy": 100 * right / done,
        "agreed": agreed,
        "as_checkpoint": same,
        "seconds": taken,
    }


def _engine(snn: Snn) -> Reader:
    engine = LayerEngine(snn)
    return lambda batch: Recording({}, engine.run(batch).outputs[0])


def _decided(recording: Recording) -> torch.Tensor:
    return recording.outputs[-1].flatten(1).argmax(1)


def known() -> dict[str, dict[str, Any]]:
    """The cells that were measured."""
    return json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else {}


def page(results: dict[str, dict[str, Any]]) -> str:
    """The table, what its cells without figures say, and the answers that are not those of our engine."""
    measured = {key.partition(", ")[2] for key in results}
    heads = [column.name for column in columns() if column.name in measured]
    lines = [f"| network | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    reasons: dict[str, int] = {}
    for row in ROWS:
        found = [results.get(f"{row}, {name}") for name in heads]
        whole = max((one["images"] for one in found if one and "images" in one), default=0)
        cells = [_said(one, whole, reasons) for one in found]
        lines.append(f"| {row}, {whole:,} images | {' | '.join(cells)} |")
    run = [one for one in results.values() if "images" in one]
    spikes, images = (sum(one[key] for one in run) for key in ("spikes", "images"))
    same, checkpoint = (sum(one[key] for one in run) for key in ("agreed", "as_checkpoint"))
    said = (
        f"{sum(one['differing'] for one in run):,} of {spikes:,} spikes differ in the {len(run)} cells that ran. "
        f"{same:,} of {images:,} answers are those of our engine on the exported network, {checkpoint:,} those of the "
        "checkpoint."
    )
    return "\n".join([*lines, "", *(f"{index}. {why}" for why, index in reasons.items()), "", said, ""])


def _said(found: dict[str, Any] | None, whole: int, reasons: dict[str, int]) -> str:
    """A cell; what cannot be is numbered in `reasons`."""
    if found is None:
        return "not measured"
    if "why" in found:
        return f"no ({reasons.setdefault(found['why'], len(reasons) + 1)})"
    images = "" if found["images"] == whole else f" of {found['images']:,}"
    return f"{found['differing']:,}; {found['accuracy']:.2f} %{images}; {found['seconds']:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", action="append", choices=ROWS, help="only this network (repeatable)")
    parser.add_argument("--column", action="append", help="only ways out that start with this (repeatable)")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=900, help="of the reader, for the accuracy of a cell")
    parser.add_argument("--environments", type=Path, default=HERE.parent / ".readers", help="of the readers of NIR")
    parser.add_argument("--again", action="store_true", help="also cells that are known")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    wrong = False
    for row in asked.row or ROWS:
        for column in columns():
            key = f"{row}, {column.name}"
            if not column.name.startswith(tuple(asked.column or [""])) or (key in known() and not asked.again):
                continue
            found = cell(row, column, asked)
            print(key, found, flush=True)
            wrong |= bool(found.get("differing"))
            results = known() | {key: found}  # read again: another run may measure other rows
            RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", "utf-8")
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{page(known())}{END}{rest.split(END)[1]}", "utf-8")
    sys.exit(wrong)


if __name__ == "__main__":
    main()
