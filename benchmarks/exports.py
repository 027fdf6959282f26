"""Every way out of the tool for seven networks, run in the program that reads it: docs/exports.md has the table.

    python benchmarks/exports.py                                # what is missing in benchmarks/results/exports.json
    python benchmarks/exports.py --row resnet20 --column "onnx step" --again

Each network is converted once (streaming; T = 16, MobileNet 32 with ternary neurons; for windows bistable with one
window of 4 steps), kept in build/exports, and exported by every row of EXPORTERS that has something to run it. A cell
counts the spikes, of 64 images and every neuron and step, in which that program differs from this package's engine on
the exported network, and the accuracy in that program on up to 1,000 images (ImageNet 300), as many as fit into
--seconds. Models, data and preprocessing are those of benchmarks/zoo.toml and of the package.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from snnconvert.compile.precision import in_precision
from snnconvert.data.selection import images_for
from snnconvert.errors import SnnConvertError
from snnconvert.exporters import EXPORTERS, Export, exporter_of
from snnconvert.exporters.nir_file import READERS
from snnconvert.exporters.task import Task
from snnconvert.exporters.verify import MOST_AT_ONCE, compare, engine_of
from snnconvert.graph.checkpoint import load_snn, save_snn
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Snn
from snnconvert.pipeline import Request, run
from snnconvert.zoo.manifest import load_manifest

HERE = Path(__file__).parent
RESULTS, PAGE, BUILT = (
    HERE / "results" / "exports.json",
    HERE.parent / "docs" / "exports.md",
    HERE.parent / "build" / "exports",
)
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
SPIKES_ON, WINDOW = 64, 4
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

    @property
    def asked(self) -> Export:
        """As options."""
        return Export(self.to, self.form, **({} if self.reader is None else {"reader": self.reader}))


def columns() -> Iterator[Column]:
    """One for every form or reader of every exporter that can be run, and one for 8-bit weights in ONNX."""
    for to, row in EXPORTERS.items():
        if "reader" in row.options:
            for reader in READERS:
                yield Column(f"{to} {reader}", to, reader=reader)
            continue
        for form in row.forms or (None,) if row.reader else ():
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


def cell(row: str, column: Column, images: int, seconds: float) -> dict[str, Any]:
    """What one export does, or why it cannot be."""
    snn = in_precision(network(row, windowed=column.windowed), column.precision)
    asked = column.asked
    data = images_for(
        snn, str(request_for(row, 1, 1).data or ROWS[row]), 300 if row.startswith("mobilenet") else images
    )
    some = data.subset(np.arange(SPIKES_ON))
    with tempfile.TemporaryDirectory() as folder:
        exporter = EXPORTERS[column.to]
        try:
            exporter_of(asked)
            own = {name: getattr(asked, name) for name in exporter.options}
            task = Task(snn, Path(folder) / f"m{exporter.suffix}", column.form or "", own, some.images())
            written = exporter.write(task)
            reader = exporter.read(task, written)
        except SnnConvertError as error:
            return {"why": "; ".join((error.message, *error.causes[:1]))}
        found = compare(written.network, reader, some.images(), some.labels, engine=written.engine)
        right, same, done, agreed, taken = 0, 0, 0, 0, 0.0
        ours, whole = written.engine or engine_of(written.network), engine_of(snn)
        while done < len(data) and taken < seconds:
            part = np.arange(done, min(done + MOST_AT_ONCE, len(data)))
            batch, labels = data.images(part), torch.from_numpy(np.asarray(data.labels)[part])
            before = time.perf_counter()
            answers = reader(batch).outputs[-1].flatten(1).argmax(1)
            taken += time.perf_counter() - before
            agreed += int((answers == ours(batch).outputs[-1].flatten(1).argmax(1)).sum())
            same += int((answers == whole(batch).outputs[-1].flatten(1).argmax(1)).sum())
            right += int((answers == labels).sum())
            done += len(batch)
    return {
        "differing": found.total,
        "compared": found.compared,
        "spikes": found.spikes,
        "logits": found.logits,
        "images": done,
        "accuracy": 100 * right / done,
        "agreed": agreed,
        "as_checkpoint": same,
        "seconds": taken,
        "timesteps": snn.schedule.timesteps,
    }


def page(results: dict[str, dict[str, Any]]) -> str:
    """The table, and what its cells without figures say."""
    measured = {key.partition(", ")[2] for key in results}
    heads = [column.name for column in columns() if column.name in measured]
    lines = [f"| network | {' | '.join(heads)} |", f"|---|{'---:|' * len(heads)}"]
    reasons: list[str] = []
    for row in ROWS:
        cells = []
        for name in heads:
            found = results.get(f"{row}, {name}")
            if found is None:
                cells.append("not measured")
            elif "why" in found:
                if found["why"] not in reasons:
                    reasons.append(found["why"])
                cells.append(f"no ({reasons.index(found['why']) + 1})")
            else:
                cells.append(_said(found))
        lines.append(f"| {row} | {' | '.join(cells)} |")
    notes = [f"{index}. {reason}" for index, reason in enumerate(reasons, 1)]
    return "\n".join([*lines, "", *notes, ""] if notes else [*lines, ""])


def _said(found: dict[str, Any]) -> str:
    """A cell with figures."""
    answers = f"answers as ours on {found['agreed']:,}, as the checkpoint's on {found['as_checkpoint']:,}"
    return (
        f"{found['differing']:,} of {found['spikes']:,}; {found['accuracy']:.2f} % of {found['images']:,} ({answers}); "
        f"{found['seconds']:.0f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", action="append", choices=ROWS, help="only this network (repeatable)")
    parser.add_argument("--column", action="append", help="only this way out (repeatable)")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=900, help="of the reader, for the accuracy of a cell")
    parser.add_argument("--again", action="store_true", help="also cells that are known")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text("utf-8")) if RESULTS.is_file() else {}
    for row in asked.row or ROWS:
        for column in columns():
            key = f"{row}, {column.name}"
            if (asked.column and column.name not in asked.column) or (key in results and not asked.again):
                continue
            results[key] = cell(row, column, asked.images, asked.seconds)
            print(key, results[key], flush=True)
            RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", "utf-8")
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{page(results)}{END}{rest.split(END)[1]}", "utf-8")


if __name__ == "__main__":
    main()
