"""The main path: open and canonicalise, calibrate and compile, simulate, study.

Steps are functions of `stages`; `spiking` is calibration (METHODS) and compilation (`compile_network`) with the choice
of neuron and schedule around them.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from torch import nn

from snnconvert.calibrate.observe import in_canonical_order
from snnconvert.data.selection import select_inputs
from snnconvert.errors import OptionError
from snnconvert.graph.types import Snn
from snnconvert.progress import Progress, silent
from snnconvert.request import Request, check_request
from snnconvert.simulate.early_exit import with_early_exit
from snnconvert.stages import (
    Outcome,
    kept,
    measured,
    open_ann,
    spiking,
    studied,
    timed,
    with_bundled_data,
    with_encoder,
)
from snnconvert.study.converted import Converted
from snnconvert.study.evaluate import Spread
from snnconvert.study.studies import check_studies

__all__ = ["Outcome", "Request", "convert_model", "run"]


def run(
    request: Request, progress: Progress = silent, *, module: nn.Module | None = None, spread: Spread | None = None
) -> Outcome:
    """Convert and measure one model: the file or name in `request.model`, or `module`.

    With `spread`, others simulate a part of the evaluation images; the result is the same.

    Raises:
        SnnConvertError: any of its branches; nothing has been written then.
    """
    check_request(request)
    request = with_bundled_data(request)
    timings: dict[str, float] = {}
    with timed(timings, "open"):
        ann, facts = open_ann(request, module)
    with timed(timings, "data"):
        inputs = select_inputs(ann, facts.classes, request)
    with timed(timings, "calibrate"):
        images = in_canonical_order(inputs.calibration)
        ann, network = with_encoder(request, ann, images)
        snn = spiking(request, ann, network, images=images, inputs=inputs, progress=progress)
        request = request.with_neuron(snn.neuron)
        if request.early_exit is not None:
            snn = with_early_exit(snn, images, request.early_exit, progress)
        check_studies(request.studies, snn.schedule.kind, chosen=True)
    with timed(timings, "simulate"):
        evaluation = measured(request, ann, snn, inputs.measured, progress=progress, spread=spread)
    studies = studied(request, Converted(ann, network, snn, images, inputs, evaluation), timings, progress)
    snn = kept(snn, inputs, evaluation, studies)
    return Outcome(request, ann, facts, inputs, snn, evaluation, studies, timings)


def convert_model(model: str | Path | nn.Module, **options: Any) -> Snn:
    """Convert a file, a named model, or a module in memory, and return the spiking network.

    Args:
        model: as on the command line; or a `torch.nn.Module`, which needs `input_shape` and is never changed.
        options: the fields of `Request`, for instance timesteps, data, calibration_data.

    Raises:
        SnnConvertError: any of its branches.
    """
    allowed = [one.name for one in fields(Request) if one.name != "model"]
    unknown = sorted(set(options) - set(allowed))
    if unknown:
        raise OptionError(
            f"convert_model has no option {unknown[0]!r}; there are {', '.join(allowed)}",
            hint="a calibration method's own options go into options={...}, for instance options={'percentile': 99.9}",
        )
    if isinstance(model, nn.Module):
        return run(Request(model=type(model).__name__, **options), module=model).snn
    return run(Request(model=str(model), **options)).snn
