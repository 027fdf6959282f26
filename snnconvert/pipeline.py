"""The main path: open and canonicalise, calibrate and compile, simulate, study.

Steps are functions of `stages`; `spiking` is calibration (METHODS) and compilation (`compile_network`) with the choice
of neuron and schedule around them.
"""

from __future__ import annotations

from collections.abc import Callable

from snnconvert.calibrate.observe import in_canonical_order
from snnconvert.data.memory import Memory
from snnconvert.progress import Progress, silent, timed
from snnconvert.replay import chosen_inputs
from snnconvert.request import Request, check_request
from snnconvert.simulate.early_exit import with_early_exit
from snnconvert.stages import (
    Outcome,
    for_task,
    kept,
    measured,
    open_ann,
    spiking,
    studied,
    with_bundled_data,
    with_encoder,
)
from snnconvert.study.converted import Converted
from snnconvert.study.evaluate import Spread
from snnconvert.study.studies import check_studies

__all__ = ["Outcome", "Request", "run"]


def run(
    request: Request,
    progress: Progress = silent,
    memory: Memory | None = None,
    spread: Spread | None = None,
    say: Callable[[str], object] = str,
) -> Outcome:
    """Convert and measure one model: the file or name in `request.model`, or the module in `memory`.

    `memory` also holds data; with `spread`, others simulate some images, as one would; `say` is told what to expect.

    Raises:
        SnnConvertError: any of its branches; nothing has been written then.
    """
    check_request(request)
    request = with_bundled_data(request)
    timings: dict[str, float] = {}
    with timed(timings, "open"):
        ann, facts = open_ann(request, memory)
    with timed(timings, "data"):
        request, inputs = chosen_inputs(request.for_network(ann), ann, memory)
        ann = for_task(request, ann, inputs.task)
    with timed(timings, "calibrate"):
        images = in_canonical_order(inputs.calibration)
        ann, network = with_encoder(request, ann, images, inputs)
        snn = spiking(request, ann, network, images=images, inputs=inputs, progress=progress, say=say)
        snn = with_early_exit(snn, images, request.early_exit, progress)
        check_studies(request.studies, snn.schedule.kind, chosen=True)
    with timed(timings, "simulate"):
        evaluation = measured(request, ann, snn, inputs.measured, progress=progress, spread=spread)
    studies = studied(request, Converted(ann, network, snn, images, inputs, evaluation), timings, progress)
    request = request.with_neuron(snn.neuron)
    snn = kept(snn, inputs, evaluation, studies)
    return Outcome(request, ann, facts, inputs, snn, evaluation, studies, timings)
