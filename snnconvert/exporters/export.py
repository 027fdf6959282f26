"""One export from a network or a checkpoint to files, and the proof that they mean the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from snnconvert.data.selection import images_for
from snnconvert.errors import InternalError, NodeFault, OptionError, UnsupportedError
from snnconvert.exporters import EXPORTERS, Export, exporter_of
from snnconvert.exporters.task import Task, Written
from snnconvert.exporters.verify import Comparison, compare, engine_of
from snnconvert.graph.checkpoint import load_snn
from snnconvert.graph.dialect import calls, origin_of
from snnconvert.graph.kinds import Role
from snnconvert.graph.types import Snn
from snnconvert.options import check
from snnconvert.progress import Progress, silent


@dataclass(frozen=True)
class Exported:
    """What was exported.

    Attributes:
        written: the files, and the network that they hold.
        form: how it was made, in words: EXPORTER, or EXPORTER and form.
        changed: the checkpoint's network beside the one that was written, where they differ and there are images.
        verified: the engine beside the reader, where that was asked for.
    """

    written: Written
    form: str
    changed: Comparison | None = None
    verified: Comparison | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """What was written."""
        return self.written.files

    @property
    def network(self) -> Snn:
        """Exactly the network that the files hold."""
        return self.written.network

    def document(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "schema": "snnconvert-export/1",
            "model": self.network.source.name,
            "form": self.form,
            "files": [str(path) for path in self.files],
            "notes": list(self.written.notes),
            "facts": dict(self.written.facts),
            "changed": None if self.changed is None else self.changed.document(),
            "verified": None if self.verified is None else self.verified.document(),
        }


def export(snn: Snn | str | Path, output: str | Path | None = None, *, to: str, **options: Any) -> Exported:
    """Write a spiking network for another program.

    Args:
        snn: a network, a `Conversion`, or a checkpoint (.snn).
        output: a file, or a folder for formats of several; beside the checkpoint if it is left out.
        to: a name from EXPORTERS.
        options: other fields of `Export`: form, verify, data, limit, and those of the exporter.

    Returns:
        The files, the network that they hold, and what was compared.

    Raises:
        OptionError: an option that does not fit.
        UnsupportedError: what cannot be exported exactly, naming layers and reasons; nothing is written then.
    """
    path = None if output is None else Path(output)
    return run_export(getattr(snn, "snn", snn), Export(to=to, output=path, **options))


def run_export(snn: Snn | str | Path, asked: Export, progress: Progress = silent) -> Exported:
    """As `export`, from options."""
    check(replace(asked, to=asked.to or next(iter(EXPORTERS), "")))
    row = exporter_of(asked)
    if row.forms and asked.form is None:
        asked = replace(asked, form=next(iter(row.forms)))
    network = snn if isinstance(snn, Snn) else load_snn(snn)
    if network.schedule.continuous and not row.continuous:
        raise OptionError(
            f"--to {asked.to} has no spikes in continuous time, which this network sends",
            hint="convert with slots: --schedule ttfs --time-bits 4",
        )
    if network.schedule.whole and (asked.form or "") not in row.events:
        raise OptionError(
            f"--to {asked.to} has no windows of one layer after the other, nor products and thresholds that spikes set",
            hint="hand the checkpoint on with --to huggingface; --to onnx --ann writes the original network; what is "
            "converted with --schedule bistable can be exported, with layer norms and softmaxes that stay analog",
        )
    if (asked.form or "") not in row.events:
        _refuse_events(network, asked)
    path = asked.output
    if path is None:
        if isinstance(snn, Snn):
            raise OptionError("an export needs a place to be written to", hint="give output=...", options=("output",))
        path = Path(snn).with_suffix(row.suffix or f".{asked.to}")
    if row.suffix and path.suffix != row.suffix:
        hint = f"name it {path.with_suffix(row.suffix)}"
        raise OptionError(f"{path} does not end in {row.suffix}", hint=hint, options=("output",))
    images = None if asked.data is None else images_for(network, asked.data, asked.limit)
    options = {name: getattr(asked, name) for name in row.options}
    task = Task(network, path, asked.form or "", options, None if images is None else images.images())
    written = row.write(task)
    if not written.files:
        raise InternalError(f"--to {asked.to} wrote nothing")
    form = asked.to if asked.form is None else f"{asked.to}, {asked.form}"
    if images is None:
        return Exported(written, form)
    assert task.images is not None
    changed, verified = None, None
    engine = written.engine or engine_of(written.network)
    if written.spiking and (written.network is not network or written.engine is not None):
        changed = compare(network, engine, task.images, images.labels, progress=progress)
    if asked.verify:
        reader = row.read(task, written)
        verified = compare(written.network, reader, task.images, images.labels, engine=engine, progress=progress)
    return Exported(written, form, changed, verified)


def _refuse_events(network: Snn, asked: Export) -> None:
    """What is written by most exporters is given the same input in every step."""
    faults = []
    for node, op in calls(network.graph):
        if op.role == Role.EVENTS:
            origin = origin_of(node)
            reason = "recordings of events come in here, others in every step"
            faults.append(NodeFault(origin.name, origin.operator, reason))
    if faults:
        form = f", form {asked.form}," if asked.form else ""
        raise UnsupportedError(
            f"--to {asked.to}{form} holds networks whose input stays the same in all steps",
            hint="replay it with `snnconvert run` or snn.simulate; hand it on with --to huggingface, or the original "
            "network of accumulated frames with --to onnx --ann",
            faults=tuple(faults),
        )
