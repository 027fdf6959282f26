"""The command `export`."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from snnconvert.cli.terminal import Terminal
from snnconvert.console import Console
from snnconvert.exporters import Export
from snnconvert.exporters.export import Exported, run_export
from snnconvert.exporters.verify import Comparison


def export(checkpoint: Path, asked: Export, terminal: Terminal) -> None:
    """Export a checkpoint and print what was written and how it compares; exit 3 if a spike differs in the reader."""
    with terminal.progress() as progress:
        made = run_export(checkpoint, asked, progress)
    if terminal.as_json:
        print(json.dumps(made.document(), indent=1))
    elif not terminal.quiet:
        _print(made)
    if made.verified is not None and not made.verified.equal:
        raise typer.Exit(3)


def _print(made: Exported) -> None:
    console = Console()
    for path in made.files:
        console.print(f"written: {path} ({path.stat().st_size / 1e3:,.0f} kB)", soft_wrap=True)
    for note in made.written.notes:
        console.print(note)
    if made.changed is None and made.verified is None:
        console.print("not compared with anything: add --data, and --verify to run it where it goes", style="dim")
        return
    if made.changed is not None:
        console.print(f"portable form: {_sentence(made.changed, 'the checkpoint')}")
    if made.verified is not None:
        ours, theirs = made.verified.seconds
        console.print(f"{made.form}: {_sentence(made.verified, 'our engine')}, in {theirs:.1f} s (ours {ours:.1f} s)")
        for name, count in made.verified.differing.items():
            if count:
                console.print(f"  {name}: {count:,} differ")


def _sentence(one: Comparison, beside: str) -> str:
    """What a comparison found, in words."""
    spikes = f"{one.total:,} of {one.spikes:,} spikes differ from {beside}"
    if one.total == 0:
        spikes = f"equal to {beside} in every spike"
    found = f"{one.agreed} of {one.images} answers are the same"
    found = found if not one.differing else f"{spikes}, {found}"
    if one.right is not None:
        first, second = (f"{100.0 * right / max(1, one.images):.2f}" for right in one.right)
        found += f", accuracy {first} %" if first == second else f", accuracy {first} % -> {second} %"
    return f"{found}, outputs differ by at most {one.logits:.2g}"
