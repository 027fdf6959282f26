"""The command `check`: what a conversion would do, node by node."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from snnconvert.api.fit import fit
from snnconvert.cli.terminal import Terminal
from snnconvert.console import Console
from snnconvert.convert.check import Check, check_model
from snnconvert.convert.doors import open_model
from snnconvert.convert.preprocessing_search import Fit, as_good, find_preprocessing
from snnconvert.data.bundled import data_path
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.errors import OptionError, UnsupportedError, listed
from snnconvert.options import check as check_options
from snnconvert.request import Request


def check(request: Request, terminal: Terminal, *, find: bool) -> None:
    """Print a verdict for every node, and with `find` the preprocessings that fit best.

    Raises:
        UnsupportedError: the model would not be converted.
    """
    check_options(request)
    if find and request.data is None:
        raise OptionError("--find-preprocessing needs labelled images", hint="add --data, as for convert")
    if request.data is not None and not find:
        raise OptionError("check needs no data", hint="leave --data out, or add --find-preprocessing")
    if (request.label_offset, request.preprocessing) != (0, Preprocessing()) and not find:
        raise OptionError(
            "check looks at no images, so preprocessing and --label-offset change nothing",
            hint="leave them out, or add --find-preprocessing and --data",
        )
    if request.gives("timesteps") and request.target is None:
        raise OptionError(
            "check looks at nodes, which -T does not change",
            hint="leave -T out, or add --target: what a chip cannot do depends on it",
        )
    logging.getLogger("torch").setLevel(logging.ERROR)
    found = check_model(
        request.model,
        arch=request.arch,
        input_shape=request.input_shape,
        output_name=request.output_name,
        way=request.approximate,
        strict=request.strict_spiking,
        linear=request.linear,
        signed=request.signed,
    )
    fits = _fits(request) if find and not found.refusal else []
    chip = fit(request) if request.target is not None and not found.refusal else None
    if terminal.as_json:
        extra: dict[str, Any] = {"preprocessing": [one.to_dict() for one in fits]} if find else {}
        extra |= {"chip": chip} if chip else {}
        print(json.dumps({**found.to_dict(), **extra}, indent=1))
    else:
        if any(node.name for node in found.nodes):
            _print(found)
        if fits:
            _print_fits(fits)
        if chip:
            _print_chip(chip)
    if found.refusal:
        causes = tuple(
            f"{node.name} ({node.operator}): {node.reason}" if node.name else node.reason
            for node in found.nodes
            if node.verdict in _refused(found)
        )
        refused = found.refusal if found.hint else f"{request.model} would not be converted: {found.refusal}"
        raise UnsupportedError(refused, hint=found.hint or _hint(found), causes=causes)


def _fits(request: Request) -> list[Fit]:
    ann = open_model(request.model, arch=request.arch, input_shape=request.input_shape, output_name=request.output_name)
    data = str(data_path(request.data or ""))
    return find_preprocessing(ann, data, base=request.preprocessing, label_offset=request.label_offset)


def _refused(found: Check) -> tuple[str, ...]:
    return ("unsupported",) if found.counts()["unsupported"] else ("analog",)


def _hint(found: Check) -> str:
    refused = [node for node in found.nodes if node.remedy and node.verdict in _refused(found)]
    remedies = [node.remedy for node in refused]
    return (
        f"what would change {listed([n.name for n in refused], 3)}: {remedies[0]}"
        if remedies
        else "a network without ReLU-like activations would stay as it is"
    )


def _print(found: Check) -> None:
    console = Console()
    takes = ", ".join(part.describe() for part in found.inputs) or "x".join(map(str, found.input_shape))
    table = Table(title=f"{found.model}, input {takes}" if found.input_shape else None)
    for title in ("node", "operator", "verdict", "reason"):
        table.add_column(title, overflow="fold")
    for node in found.nodes:
        table.add_row(node.name, node.operator, node.verdict, node.reason)
    console.print(table)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in found.counts().items() if count)
    console.print(f"{len(found.nodes)} nodes: {counts}", highlight=False)
    if found.operations:
        once, each = (found.operations[kind] / max(sum(found.operations.values()), 1) for kind in ("input", "current"))
        console.print(
            f"spiking coverage: {found.operation_coverage:.1%} of the operations add spikes ({once:.1%} read the input "
            f"once, {each:.1%} multiply in every step); {found.sites} of {found.sites + found.analog} activations",
            highlight=False,
        )
    remedies = dict.fromkeys(f"{node.operator}: {node.remedy}" for node in found.nodes if node.verdict == "analog")
    for line in (*(f"what would change an analog node: {remedy}" for remedy in remedies), *found.notes):
        console.print(line, highlight=False)


def _print_chip(chip: Mapping[str, Any]) -> None:
    table = Table(title=f"on {chip['target']}, in {chip['timesteps']} steps")
    for title in ("neuron and schedule", "limits broken", "for instance"):
        table.add_column(title, overflow="fold")
    for row in chip["choices"]:
        broken = "cannot be had" if row["broken"] is None else str(row["broken"])
        table.add_row(row["name"], broken, row["reason"])
    console = Console()
    console.print(table)
    if chip["violations"]:
        console.print("no neuron or schedule mends:")
    for row in chip["violations"]:
        console.print(f"  {row['layer']}: {row['text']} ({row['limit'].replace('_', ' ')} {row['allowed']})")


def _print_fits(fits: list[Fit]) -> None:
    table = Table(title=f"the best normalisations on {fits[0].images} images")
    table.add_column("normalisation")
    table.add_column("accuracy %", justify="right")
    table.add_column("options")
    for one in (one for one in fits if one.images == fits[0].images):
        table.add_row(one.name, f"{one.accuracy:.1f}", one.options())
    console = Console()
    console.print(table)
    equal = as_good(fits)
    console.print(f"best: {fits[0].options()}", highlight=False)
    if len(equal) > 1:
        console.print(f"{len(equal)} fit equally well on so few images: {', '.join(f.name for f in equal)}")
