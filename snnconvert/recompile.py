"""A checkpoint's calibration in another schedule, for another number of steps, or in another precision."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import fx

from snnconvert.calibrate.observe import in_canonical_order
from snnconvert.compile.balance import with_identity_sites
from snnconvert.compile.network import compiled_again
from snnconvert.compile.precision import in_precision
from snnconvert.data.selection import calibrated_on
from snnconvert.errors import OptionError
from snnconvert.graph.dialect import neurons_of, sites
from snnconvert.graph.schedule import MOST_TIMESTEPS, SCHEDULES, Schedule, owners
from snnconvert.graph.types import Calibrated, NeuronChoice, Snn
from snnconvert.neurons import NEURONS
from snnconvert.options import AUTO, Usual
from snnconvert.progress import Progress, silent
from snnconvert.simulate.early_exit import with_early_exit

# what an evaluation record says of its images; the rest are figures of one network
SELECTION = ("source", "labelled", "fingerprint", "excluded_calibration", "limit", "seed", "label_offset", "labels")


@dataclass(frozen=True)
class Change:
    """What to change; None leaves it as the checkpoint has it. `options` are the schedule's own (see `owners`)."""

    schedule: str | None = None
    timesteps: int | None = None
    precision: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def recompiled(snn: Snn, change: Change, progress: Progress = silent) -> tuple[Snn, tuple[str, ...]]:
    """`snn` changed, and what has to be said about it; `snn` itself where nothing changes.

    Thresholds and weights stay those of the calibration. What belongs to its schedule alone is made anew or switched
    off: the limit of early exit, on the calibration images if they are at hand; the start of the read-out.

    Raises:
        OptionError: a schedule that does not fit, or a checkpoint that does not hold its calibration.
    """
    precision = change.precision or snn.precision
    if change.schedule is None and change.timesteps is None and not change.options:
        if precision == snn.precision:
            return snn, ()
        if snn.precision == "float32":
            return in_precision(replace(snn, evaluation=_selection(snn)), precision), ()
    calibrated = snn.calibrated
    if calibrated is None:
        raise OptionError(
            f"{snn.source.name} cannot be compiled again: its checkpoint does not hold the calibrated network",
            hint="convert the model again: "
            + _command(snn.source.location, change, _chosen(snn.neuron, neurons_of(snn.graph), snn.calibration)),
        )
    schedule = schedule_of(calibrated, snn.schedule, change)
    hint = f"to calibrate for it: {conversion(calibrated, schedule, precision)}"
    if with_identity_sites(calibrated.network, schedule) is not calibrated.network:
        raise OptionError(
            f"{schedule.describe()} needs signed neurons on sums that hold a branch back, which the calibration "
            f"for {calibrated.schedule.describe()} has no thresholds for",
            hint=hint,
        )
    made = compiled_again(calibrated, schedule, snn.neuron, precision)
    notes: tuple[str, ...] = ()
    if made.provenance:
        notes = (made.provenance, hint)
        if calibrated.schedule.read_from and not schedule.read_from:
            notes += ("the read-out starts with the first answer: where it started was chosen for the other schedule",)
    if calibrated.early_exit is not None and made.early_exit is None:
        made, note = _with_own_early_exit(made, calibrated, progress)
        notes += (note,)
    same = (schedule, precision) == (snn.schedule, snn.precision)
    return replace(made, evaluation=snn.evaluation if same else _selection(snn)), notes


def schedule_of(calibrated: Calibrated, now: Schedule, change: Change) -> Schedule:
    """The schedule to compile for: `now` with what is changed, in which the depth stays the same.

    Raises:
        OptionError: an option of another kind of schedule, or steps that do not suffice.
    """
    kind = change.schedule or now.kind
    timesteps = Usual(now.timesteps) if change.timesteps is None else change.timesteps
    if timesteps > MOST_TIMESTEPS:
        most = MOST_TIMESTEPS
        raise OptionError(f"--timesteps {timesteps} is above {most}", hint=f"give --timesteps at most {most}")
    if kind not in SCHEDULES:
        raise OptionError(f"--schedule {kind!r} is not known", hint=f"choose one of {', '.join(SCHEDULES)}")
    row = SCHEDULES[kind]
    for option in sorted(change.options.keys() - set(row.options())):
        raise OptionError(
            f"--{option} means nothing to --schedule {kind}",
            hint=f"leave --{option} out, or add --schedule {' or '.join(owners()[option])}",
        )
    # what follows from the number of steps does not outlive a change of it
    left = ("read_from", *(row.from_timesteps if change.timesteps is not None else ()))
    options = {name: getattr(now, name) for name in row.options() if name not in left and hasattr(now, name)}
    found = [made for _, made in row.within(timesteps, now.depth, **{**options, **change.options})]
    fitting = [made for made in found if isinstance(made, Schedule)]
    if not fitting:
        (error, *_) = [made for made in found if isinstance(made, OptionError)]
        raise OptionError(f"--schedule {kind} does not fit: {error.message}", hint=error.hint)
    own = calibrated.schedule
    return own if fitting[-1] == own.reading_from(0) else fitting[-1]


def conversion(calibrated: Calibrated, schedule: Schedule, precision: str = "float32") -> str:
    """The command that converts the same model with the same choices for `schedule`."""
    options = {name: getattr(schedule, name) for name in schedule.options() if name != "read_from"}
    own = {name: value for name, value in options.items() if value != schedule.default(name)}
    change = Change(schedule.kind, schedule.timesteps, precision, own)
    given = {"approximate": calibrated.approximate, "input_encoder": calibrated.input_encoder}
    layers = [node for node, _ in sites(calibrated.network.graph)]
    extra = _chosen(calibrated.neuron, layers, calibrated.record, **given, linear=calibrated.linear)
    return _command(calibrated.network.source.location, change, extra)


def _chosen(
    neuron: NeuronChoice,
    layers: Iterable[fx.Node],
    record: Mapping[str, Any],
    *,
    approximate: str = AUTO,
    input_encoder: str = "analog",
    linear: str = AUTO,
) -> list[str]:
    """The options of a conversion that made these choices, as far as they are not the usual ones.

    `layers` of neurons are in data-flow order, which `--levels` follows.
    """
    added = record.get("added_neurons")
    units = added if isinstance(added, list) else [neuron.units_at(node.name) for node in layers]
    units = units if len(set(units)) > 1 else units[:1]
    by_channel = "budget" in record
    chosen = {
        "--neuron": (neuron.model, NeuronChoice().model),
        "--levels": ("" if by_channel else ",".join(map(str, units)), str(NEURONS[neuron.model].levels)),
        "--calibration": (str(record.get("method", "reconstruct")), "reconstruct"),
        "--approximate": (approximate, AUTO),
        "--input-encoder": (input_encoder, "analog"),
        "--linear": (linear, AUTO),
    }
    words = [word for name, (value, usual) in chosen.items() if value not in ("", usual) for word in (name, value)]
    words += ["--budget", str(record["budget"]), "--budget-by", "channel"] if by_channel else []
    return [*words, *(["--added-neurons"] if added else [])]


def _command(location: str, change: Change, extra: list[str]) -> str:
    words = ["snnconvert", location or "MODEL"]
    for option, value, usual in (
        ("-T", change.timesteps, None),
        ("--schedule", change.schedule, None),
        *((f"--{name}", value, None) for name, value in change.options.items()),
        ("--precision", change.precision, "float32"),
    ):
        if value not in (None, usual):
            words += [option, str(value)]
    return shlex.join([*words, *extra])


def _with_own_early_exit(snn: Snn, calibrated: Calibrated, progress: Progress) -> tuple[Snn, str]:
    """`snn` with a limit of its own, found on the calibration images, or without; and what became of it."""
    assert calibrated.early_exit is not None
    found = calibrated_on(snn)
    if found is None:
        return snn, "early exit is switched off: its limit was found for the other schedule, and the images are gone"
    images = found.images()
    try:
        made = with_early_exit(snn, in_canonical_order(images), calibrated.early_exit.share, progress)
    except OptionError as error:
        return snn, f"early exit is switched off: {error.message}"
    return made, f"the limit of early exit was found again on {len(images)} calibration images"


def _selection(snn: Snn) -> dict[str, object]:
    return {name: snn.evaluation[name] for name in SELECTION if name in snn.evaluation}
