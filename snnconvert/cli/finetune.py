"""The command `finetune`."""

from __future__ import annotations

from pathlib import Path

from snnconvert.api.network import check_device
from snnconvert.cli.convert import show_report, write_all
from snnconvert.cli.options import Files
from snnconvert.cli.run import check_writable, size_of
from snnconvert.cli.terminal import Terminal
from snnconvert.errors import OptionError
from snnconvert.files import together
from snnconvert.graph.checkpoint import load_snn, save_snn
from snnconvert.report.from_run import tuned_document
from snnconvert.train.finetune import tune
from snnconvert.train.options import FineTuning


def finetune(checkpoint: Path, asked: FineTuning, files: Files, terminal: Terminal) -> None:
    """Train a checkpoint on, and write the better one with a report that has both side by side."""
    output = files.output or checkpoint.with_name(f"{checkpoint.stem}-tuned.snn")
    page = files.report or output.with_suffix(".html")
    for path, suffix in ((output, ".snn"), (page, ".html")):
        check_writable(path, suffix)
    if output.exists() and output.resolve() == checkpoint.resolve():
        raise OptionError(f"{output} is the network that training starts from", hint="name another file with --output")
    check_device(asked.device)
    snn = load_snn(checkpoint)
    with terminal.progress() as progress:
        tuned = tune(snn, asked, keep=output.with_suffix(".training"), progress=progress, say=terminal.remark)
    document = tuned_document(tuned, command_line=terminal.command_line)
    with together():
        save_snn(tuned.snn, output)
        written = write_all(document, page, files)
    for note in tuned.notes:
        terminal.remark(f"note: {note}")
    show_report(document, [f"{output} ({size_of(output)})", *written], terminal)
