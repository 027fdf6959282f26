"""`finetune`: training a converted network on, from Python."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from snnconvert.api.conversion import Conversion
from snnconvert.api.convert import in_python
from snnconvert.api.network import SpikingNetwork, check_device, load
from snnconvert.data.datasets import Dataset, check_truth, dataset_of
from snnconvert.data.memory import raw_in_memory
from snnconvert.data.named import Wanted, raw_of
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.errors import OptionError, SnnConvertError, did_you_mean
from snnconvert.graph.dialect import output_nodes
from snnconvert.graph.inputs import inputs_of
from snnconvert.graph.types import Snn
from snnconvert.options import declared
from snnconvert.progress import Progress, bars, silent
from snnconvert.report.from_run import tuned_document
from snnconvert.train.finetune import tune
from snnconvert.train.options import FineTuning


def finetune(
    network: Any,
    *,
    data: Any,
    evaluation_data: Any = None,
    keep: str | Path | None = None,
    progress: bool | Progress = False,
    **options: Any,
) -> Conversion:
    """Train a converted network on, with the original network as its teacher.

    Args:
        network: a `SpikingNetwork` or `Conversion`, which is not changed, or the path of a checkpoint.
        data: images to train on, in the forms of `convert_model`; no labels are needed.
        evaluation_data: images to measure on before and after; without it those of the conversion where they can be
            read again, else those that were held out from training.
        keep: a file in which an interrupted run writes down how far it is, and from which the same call goes on.
        progress: True shows bars on stderr; a function is called with (what, done, total).
        options: every other option of `snnconvert finetune` by its name, for instance `method`, `timesteps`, `minutes`,
            `epochs`, `seed`.

    Returns:
        The trained network with its report, in which `training` has before and after side by side.

    Raises:
        OptionError: an unknown argument, a value that it does not take, or a network that cannot be trained.
        DataError: images that cannot be read, do not fit, or are evaluated on.

    Examples:
        >>> import snnconvert
        >>> options = {"timesteps": 2, "schedule": "streaming", "calibration": "mse"}
        >>> snn = snnconvert.convert_model("zoo:digits-cnn", **options).snn
        >>> better = snnconvert.finetune(snn, data="zoo:digits-cnn/train", epochs=2)
        >>> before, after = (better.report["training"][side]["accuracy"] for side in ("before", "after"))
        >>> bool(after > before)
        True
    """
    try:
        return _finetune(network, {"data": data, "evaluation_data": evaluation_data}, keep, progress, options)
    except SnnConvertError as error:
        raise in_python(error) from error.__cause__


def _finetune(
    network: Any, sets: dict[str, Any], keep: str | Path | None, progress: bool | Progress, options: dict[str, Any]
) -> Conversion:
    snn = _network(network)
    rows = declared(FineTuning)
    for name in options:
        if name not in rows:
            names = ", ".join(rows)
            raise OptionError(
                f"finetune has no argument {name!r}", hint=did_you_mean(name, tuple(rows)) or f"there are {names}"
            )
    given: dict[str, Dataset | None] = dict.fromkeys(sets)
    named: dict[str, str | None] = dict.fromkeys(sets)
    for name, value in sets.items():
        if isinstance(value, (str, Path)):
            named[name] = str(value)
        elif value is not None:
            given[name] = _in_memory(snn, value, name)
    values: dict[str, Any] = {**named, **{name: rows[name].value(value) for name, value in options.items()}}
    asked = FineTuning(**values)
    check_device(asked.device)
    shown = bars() if progress is True else nullcontext(progress or silent)
    with shown as told:
        kept = None if keep is None else Path(keep)
        tuned = tune(snn, asked, data=given["data"], evaluation_data=given["evaluation_data"], keep=kept, progress=told)
    document = tuned_document(tuned, command_line="snnconvert.finetune(...)")
    return Conversion(SpikingNetwork.of(tuned.snn), document, tuned.teacher, data=named["evaluation_data"])


def _network(network: Any) -> Snn:
    if isinstance(network, (str, Path)):
        return load(network)
    found = network if isinstance(network, Snn) else getattr(network, "snn", None)
    if isinstance(found, Snn):
        return found
    raise OptionError(
        f"{type(network).__name__} is no spiking network",
        hint="give what convert_model or load returned, or the path of a checkpoint",
    )


def _in_memory(snn: Snn, value: Any, called: str) -> Dataset:
    """What users hand over, prepared as the network's own images."""
    given, name = raw_in_memory(value, called)
    parts, labels = inputs_of(snn), snn.evaluation.get("labels")
    plan = Preprocessing.from_dict({key: kept for key, kept in snn.preprocessing.items() if kept is not None})
    found = dataset_of(
        raw_of(given, Wanted(parts, labels)),
        name,
        preprocessing=plan,
        input_shape=snn.input_shape,
        label_offset=snn.label_offset,
        inputs=parts,
    )
    check_truth(found, snn.task, output_nodes(snn.graph)[snn.task.outputs[0]].meta["shape"])
    return found
