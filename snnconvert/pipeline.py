"""The main path: open, canonicalise, calibrate, spikify, simulate."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from snnconvert.calibrate.observe import in_canonical_order
from snnconvert.compile.precision import in_precision
from snnconvert.convert.encoder import with_input_encoder
from snnconvert.convert.units import refuse_overflow, with_units
from snnconvert.data.selection import Inputs, select_inputs
from snnconvert.errors import OptionError
from snnconvert.graph.types import Ann, Snn
from snnconvert.progress import Progress, silent
from snnconvert.request import Request, check_request
from snnconvert.simulate.early_exit import with_early_exit
from snnconvert.stages import Alone, Outcome, open_ann, spiking, timed, with_bundled_data
from snnconvert.study.ablation import Subject, ablation, nothing_affordable, planned
from snnconvert.study.evaluate import Spread, evaluate, read, rerun
from snnconvert.study.shift import IMAGES, Shift, find_shift
from snnconvert.study.streaming_twin import TWIN, streaming_twin

__all__ = ["Outcome", "Request", "convert_model", "run"]
# images on which the original network has to give finite numbers before anything is calibrated
CHECKED_IMAGES = 32


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
        with torch.inference_mode():
            refuse_overflow(ann.source.name, ann.graph(images[:CHECKED_IMAGES])[0])
        ann, network = with_units(ann, images, way=request.approximate, strict=request.strict_spiking)
        if request.input_encoder == "spiking":
            network = with_input_encoder(network)
            ann = replace(ann, source=network.source)
        snn, neuron = spiking(request, network, images, inputs.calibration_record, progress)
        request = request.with_neuron(neuron)
        if request.early_exit is not None:
            snn = with_early_exit(snn, images, request.early_exit, progress)
    with timed(timings, "simulate"):
        evaluation = evaluate(
            ann,
            snn,
            inputs.measured,
            batch_size=request.batch_size,
            progress=progress,
            device=request.device,
            spread=spread,
        )
    with timed(timings, "compare data"):
        shift = _shift(network, snn, images, inputs)
    ablated = None
    if snn.schedule.kind == "bistable":
        with timed(timings, "ablation"):
            ablated = _ablation(ann, network, snn, inputs, progress)
    rounded = None
    if request.precision != "float32":
        with timed(timings, request.precision):
            rounded = rerun(
                in_precision(snn, request.precision),
                inputs.measured,
                batch_size=request.batch_size,
                progress=progress,
                device=request.device,
            )
    alone: tuple[Alone, ...] = ()
    if request.compared:
        with timed(timings, "networks per T"):
            own = replace(request, schedule="streaming", calibrate_for=(), compare_at=(), early_exit=None)
            alone = tuple(
                _alone(
                    replace(own, timesteps=steps),
                    network,
                    images,
                    inputs=inputs,
                    reference=evaluation.reference,
                    progress=progress,
                )
                for steps in request.compared
            )
    snn = replace(
        snn,
        preprocessing=inputs.preprocessing,
        evaluation={**inputs.evaluation_record, **evaluation.figures()},
    )
    return Outcome(request, ann, facts, inputs, snn, evaluation, timings, rounded, ablated, alone, shift)


def _shift(network: Ann, snn: Snn, images: Tensor, inputs: Inputs) -> Shift | None:
    """Whether the evaluation images are of another kind than the calibration images."""
    if inputs.evaluation is None:
        return None
    measured, _ = next(iter(read(inputs.evaluation, IMAGES)))
    return find_shift(network, snn, images, measured)


def _ablation(ann: Ann, network: Ann, snn: Snn, inputs: Inputs, progress: Progress) -> dict[str, Any]:
    """What bistable and synchronous neurons are worth, on the first of the evaluation images."""
    plan = planned(snn)
    if not plan.images:
        return nothing_affordable(snn, plan)
    images, labels = next(iter(read(inputs.measured, plan.images)))
    with torch.inference_mode():
        reference = ann.graph(images)[0].flatten(1).argmax(1).numpy()
    subject = Subject(snn, network, streaming_twin(network, snn, inputs.calibration), TWIN)
    return ablation(subject, images, reference, labels, plan=plan, progress=progress)


def _alone(
    request: Request,
    network: Ann,
    images: Tensor,
    *,
    inputs: Inputs,
    reference: NDArray[np.int64] | None,
    progress: Progress,
) -> Alone:
    """A conversion for `request.timesteps` steps only, measured on the same images."""

    def told(what: str, done: int, total: int) -> None:
        progress(f"T = {request.timesteps}: {what}", done, total)

    snn, _ = spiking(request, network, images, inputs.calibration_record, told)
    curve = rerun(
        snn,
        inputs.measured,
        batch_size=request.batch_size,
        progress=told,
        device=request.device,
        reference=reference,
    )
    return Alone(snn.schedule, curve)


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
