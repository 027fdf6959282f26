"""What a user can ask of a conversion, and what of it is refused before any work.

A field of `Request` is all there is to an option: command line, manifest, checks and the table in the docs follow from
it. It is longer than 400 lines because every option is declared here, with its help.
"""

from __future__ import annotations

import math
import operator
from dataclasses import MISSING, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from snnconvert import calibrate, neurons, plugins
from snnconvert.calibrate import METHODS, check_options, on_the_command_line
from snnconvert.compile import PRECISIONS
from snnconvert.data.preprocessing import Preprocessing, check_replay, from_command_line
from snnconvert.errors import OptionError
from snnconvert.graph.schedule import MOST_BITS, MOST_TIMESTEPS, PHASES, RESIDUALS, ROUNDINGS, SCHEDULES, owners
from snnconvert.neurons import NEURONS, cheapest_first, offered
from snnconvert.options import AUTO, Usual, check, declared, option
from snnconvert.study.studies import by_name, check_studies
from snnconvert.tasks import choices

if TYPE_CHECKING:
    from snnconvert.capacity import Budget
    from snnconvert.graph.types import Ann, NeuronChoice

# units of one step fit into 16 bits: more would leave too few of a float32 sum's 24 for the weights
MOST_LEVELS = 2**16 - 1
# a budget beyond: what a layer sends is then finer than what reaches it
MOST_ADDED = 10.0
# a layer in seven with twice the units, which brings most of what there is to gain (`python benchmarks/capacity.py`)
USUAL_BUDGET = 0.15

MODEL, DATA, CALIBRATION, SNN, OUTPUT = "Model", "Data", "Calibration", "Spiking network", "Output"
_MEASURING = ("convert", "run", "report")
_of_convert = partial(option, commands=("convert",))
_of_models = partial(option, commands=("convert", "check"), panel=MODEL)
_of_checkpoints = partial(option, commands=("convert", "run"), panel=SNN)
_of_budgets = partial(_of_convert, None, panel=SNN, metavar="PERCENT")
_of_networks = partial(option, commands=("convert",), panel=SNN)
_of_zoos = ("convert", "zoo run")
# what `run` compiles a calibration again for; the fields of `recompile.Change`
CHANGES = ("schedule", "timesteps", "window", "wait", "time_bits", "precision")


def read_levels(given: Any) -> tuple[int, ...] | str:
    """Units of all layers, or of each; or the word auto.

    Raises:
        OptionError: anything else.
    """
    if given == AUTO:
        return AUTO
    parts = given.split(",") if isinstance(given, str) else list(given) if isinstance(given, list | tuple) else [given]
    try:
        found = tuple(operator.index(int(part) if isinstance(part, str) else part) for part in parts)
    except (TypeError, ValueError):
        found = ()
    if not found or isinstance(given, bool) or not all(1 <= one <= MOST_LEVELS for one in found):
        raise OptionError(
            f"--levels {given!r} is no number of units",
            hint=f"give whole numbers from 1 to {MOST_LEVELS}: --levels 2 for all layers, 1,1,2 for each; or auto",
            options=("levels",),
        )
    return found


def read_budget(name: str, given: Any) -> float:
    """A share: 15%, or 0.15.

    Raises:
        OptionError: anything else.
    """
    text = str(given).strip()
    try:
        found = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        found = math.nan
    if isinstance(given, bool) or not 0 <= found <= MOST_ADDED:
        flag = f"--{name.replace('_', '-')}"
        raise OptionError(
            f"{flag} {given!r} is no share from 0 to {MOST_ADDED:.0%}",
            hint=f"give per cent, e.g. {flag} 15%",
            options=(name,),
        )
    return found


def read_budgets(name: str, given: Any) -> tuple[float, ...]:
    """Shares: 0%,15%,40%.

    Raises:
        OptionError: anything else.
    """
    parts = given if isinstance(given, list | tuple) else [given]
    return tuple(read_budget(name, one) for part in parts for one in str(part).split(","))


@dataclass(frozen=True)
class Request:
    """Everything a user can ask of a conversion; the defaults are those of the command line."""

    model: str = _of_models(
        MISSING,
        "An .onnx file, weights (.pt, .pth, .th, .safetensors) with --arch, a .pt2 program, torchvision:NAME, "
        "timm:NAME, or zoo:NAME (zoo:digits-resnet, zoo:digits-cnn, zoo:nmnist-cnn come with the package).",
        positional=True,
        manifest=False,
    )
    arch: str | None = _of_models(
        None,
        "Architecture of a weights file: FILE.py:FACTORY (this runs that file), torchvision:NAME, timm:NAME.",
        first=("convert",),
    )
    input_shape: tuple[int, ...] | None = _of_models(
        None, "One input without the batch, where the model does not say.", least=1, example="--input-shape 3,32,32"
    )
    output_name: str | None = _of_models(
        None, "The output to convert, with what it needs.", usual="all; the first is the classifier"
    )
    task: str = option(
        AUTO,
        "What the network is for, and so by what it is judged.",
        commands=_of_zoos,
        panel=MODEL,
        choices=choices,
    )
    timesteps: int = option(
        Usual(32),
        "Total steps, from the first input to the answer; for convert also auto: the smallest that meets --max-drop, "
        "--min-accuracy, --max-error or --min-r2 (exit 3 if none does).",
        commands=("convert", "check", "run", "zoo run"),
        panel=SNN,
        short="-T",
        first=("convert",),
        least=1,
        most=MOST_TIMESTEPS,
        auto=("convert",),
    )
    data: str | None = option(
        None,
        "Images to evaluate on: .npz (x and y, or an array for each input), .npy, a table (.csv, .parquet), a folder "
        "of class folders, a folder plus labels.csv, idx or CIFAR binary files.",
        commands=(*_MEASURING, "check", "debug", "cost", "zoo init"),
        panel=DATA,
        first=("convert",),
    )
    calibration_data: str | None = option(
        None,
        "Images to calibrate on, no labels needed; without it they are drawn from --data and left out of the "
        "evaluation.",
        commands=("convert", "zoo init"),
        panel=DATA,
        first=("convert",),
    )
    calibration_samples: int = option(512, "Images to calibrate on.", commands=_of_zoos, panel=CALIBRATION, least=1)
    calibration: str = option(
        "reconstruct", "How thresholds are found.", commands=_of_zoos, panel=CALIBRATION, choices=lambda: METHODS
    )
    options: dict[str, Any] = option(
        dict,
        "The calibration method's own options.",
        flag="options",
        panel=CALIBRATION,
        inside=on_the_command_line,
        gather=dict,
    )
    neuron: str = option(
        "if",
        "Neuron model; auto tries them, cheapest spikes first, and stops at the first that is good enough on "
        "calibration images: 99 % of its answers are the original network's, or its outputs are up to 5 % off.",
        commands=_of_zoos,
        panel=SNN,
        first=("convert",),
        choices=lambda: (*offered(), AUTO),
    )
    levels: tuple[int, ...] | str | None = _of_convert(
        None,
        "Units that a neuron may send a step: one number, or one for each layer of neurons in order (1,1,2); auto "
        "gives more to the layers where that helps most, as --budget or --spike-budget allows.",
        panel=SNN,
        usual=", ".join(f"{name} {model.levels}" for name, model in offered().items() if model.adjustable),
        metavar="N|N,N,...|auto",
        read=read_levels,
    )
    budget: float | None = _of_budgets(
        "Units that --levels auto may add, over all neurons; 15% of them where nothing is said.",
        read=partial(read_budget, "budget"),
    )
    spike_budget: float | None = _of_budgets(
        "The same of spikes: how many more --levels auto may add.", read=partial(read_budget, "spike_budget")
    )
    budget_by: str = _of_convert(
        "layer",
        "Whether all channels of a layer get as many units, or those that need them more; these become a layer of "
        "their own.",
        panel=SNN,
        choices=("layer", "channel"),
    )
    added_neurons: bool = _of_convert(
        False,
        "Neurons of several units a step become so many neurons of one unit, for chips that send one spike a step.",
        panel=SNN,
    )
    budgets: tuple[float, ...] = _of_convert(
        (),
        "Measure a network with each of these budgets of units as well (of spikes, beside --spike-budget), e.g. "
        "0%,15%,40%: accuracy against capacity in the report.",
        panel=OUTPUT,
        metavar="PERCENT,...",
        read=partial(read_budgets, "budgets"),
    )
    schedule: str = option(
        AUTO,
        "When neurons integrate and emit; auto, for conversions, tries all that fit into T on calibration images and "
        "takes the one whose answer holds from the earliest step.",
        commands=("convert", "run", "zoo run"),
        panel=SNN,
        choices=lambda: (*SCHEDULES, AUTO, *(f"{AUTO},{kind}" for kind in _kinds(tried=False))),
        auto=_of_zoos,
    )
    wait: int | None = _of_checkpoints(
        None, "Steps that a layer integrates before it emits (wait).", least=1, usual="1"
    )
    window: int | None = _of_checkpoints(
        None, "Steps per window (bistable, serial).", least=1, usual="tries 2 to 8; serial: 8"
    )
    time_bits: int | None = _of_checkpoints(
        None,
        "Bits of a spike's time, so that a layer's window has 2^B slots (ttfs); without it and -T time is continuous, "
        "and with -T as many as fit.",
        least=1,
        most=MOST_BITS,
        usual="",
    )
    phases: str = _of_networks("power2", "Weights of the spikes in a window.", choices=PHASES)
    residual: str = _of_networks("keep", "Membrane after a window (bistable).", choices=RESIDUALS)
    rounding: str = _of_networks("nearest", "nearest (v(0) = half a spike) or floor (v(0) = 0).", choices=ROUNDINGS)
    read_from: int | None = _of_networks(
        None,
        "First steps that the read-out leaves out; auto chooses on calibration images (reconstruct: where it brings "
        "the read-out nearer to the original network in runs of up to 8 steps; 0 with --early-exit).",
        least=0,
        auto=("convert", "manifest"),
    )
    early_exit: float | None = _of_networks(
        None,
        "Let clear images stop early: this share keeps the last step's answer; numbers are off it by the rest at most.",
        above=0,
        most=1,
        example="--early-exit 0.99",
    )
    calibrate_for: tuple[int, ...] = _of_convert(
        (),
        "Earlier steps after which the network is to be right as well, e.g. 8,16 with -T 32; a table "
        "compares it there with networks for each of them alone.",
        panel=CALIBRATION,
    )
    frontier: tuple[int, ...] = _of_convert(
        (),
        "Measure a network fitted for each of these T as well, each with its own choice of schedule, e.g. "
        "2,4,8,16,32: the frontier of accuracy and latency in the report.",
        panel=OUTPUT,
        former="compare_at",
        least=1,
        most=MOST_TIMESTEPS,
    )
    limit: int | None = option(
        None,
        "Evaluate on a class-balanced sample of N images.",
        commands=(*_MEASURING, "debug", "cost", "zoo run"),
        panel=DATA,
        least=1,
        usual="all",
        example="--limit 500",
    )
    batch_size: int = option(
        64, "Images read at once; never changes results.", commands=(*_MEASURING, "zoo run"), panel=OUTPUT, least=1
    )
    seed: int = option(0, "Choice of images.", commands=_of_zoos, panel=DATA, least=0, most=2**32 - 1)
    preprocessing: Preprocessing = option(
        Preprocessing,
        "A TOML file with mean, std, scale, layout, channels, resize and crop: value = (x / scale - mean) / std.",
        commands=("convert", "zoo init"),
        metavar="FILE.toml",
        panel=DATA,
        usual="",
        inside=partial(declared, Preprocessing),
        gather=from_command_line,
    )
    label_column: str | None = option(
        None,
        "The labels' column in a table: its name, or its number from 0 (-1: the last).",
        commands=("convert", "run", "report"),
        metavar="NAME|INDEX",
        panel=DATA,
        usual="label, class, target, category or y",
    )
    label_key: str | None = option(
        None,
        "The labels' array in an .npz file.",
        commands=("convert", "run", "report"),
        metavar="NAME",
        panel=DATA,
        usual="y, labels or targets",
    )
    label_offset: int = option(
        0, "Added to labels (1 for a background class).", commands=("convert", "check", "zoo init"), panel=DATA
    )
    device: str = option("cpu", "cpu, or cuda where there is one.", commands=("convert", "run"), panel=OUTPUT)
    precision: str = option(
        "float32",
        "Of the weights: bfloat16 and int8 (8-bit integers per output channel, summed exactly) are shown beside "
        "float32.",
        commands=("convert", "run"),
        panel=SNN,
        choices=PRECISIONS,
    )
    input_encoder: str = _of_convert(
        "analog",
        "analog: the input is a constant current; spiking: an encoder neuron sends every value as signed spikes (sign "
        "and K bits a window, or a rate), so that the first layer adds too; one layer deeper.",
        panel=SNN,
        choices=("analog", "spiking"),
    )
    approximate: str = option(
        AUTO,
        "Sigmoid, SiLU, GELU and the like. units: write each as a few spiking units where that fits; analog: compute "
        "them in the mean and send the results as signed spikes; auto: units, unless they change the outputs by over 5 "
        "% on calibration images.",
        commands=("convert", "check"),
        panel=SNN,
        choices=(AUTO, "units", "analog"),
    )
    linear: str = option(
        AUTO,
        "Operators that follow each other without an activation. analog: the second reads sums, and multiplies in "
        "every step; spiking: a signed neuron between them sends the sum on, so that it adds; auto: spiking with "
        "--strict-spiking, and with signed spikes (ternary, graded) unless other operators stay analog.",
        commands=("convert", "check"),
        panel=SNN,
        choices=(AUTO, "spiking", "analog"),
    )
    strict_spiking: bool = option(
        False, "Refuse a model with nodes that stay analog.", commands=("convert", "check"), panel=SNN
    )
    target: str | None = option(
        None,
        "A chip, by the name of a bundled one or a file with its limits: auto tries only neurons and schedules that "
        "break the fewest of them, and the report lists what is broken, with the accuracy in the chip's integers.",
        commands=("convert", "check", "report"),
        panel=SNN,
        first=("convert",),
        metavar="NAME|FILE.toml",
    )
    energy_constants: str | None = option(
        None,
        "Energies of your own hardware, each with its source; they decide, the default ones stand beside them.",
        commands=_MEASURING,
        panel=OUTPUT,
        metavar="FILE.toml",
    )
    studies: tuple[str, ...] = _of_convert(
        (),
        "Find out more, at more time; repeatable.",
        panel=OUTPUT,
        flag="--study",
        choices=by_name,
    )

    def __post_init__(self) -> None:
        if self.levels is not None:
            object.__setattr__(self, "levels", read_levels(self.levels))

    @property
    def labels(self) -> str | None:
        """The array or column of labels; None for the usual names."""
        return self.label_key if self.label_column is None else self.label_column

    @property
    def units(self) -> int:
        """Units that a neuron may send a step, where these are the same everywhere."""
        model = NEURONS.get(self.neuron)
        if isinstance(self.levels, tuple) and len(self.levels) == 1:
            return self.levels[0]
        return 1 if model is None else model.levels

    def sums_spike(self, ann: Ann) -> bool:
        """Whether sums that operators with weights of `ann` read are sent as spikes."""
        from snnconvert.convert.linear import sums_spike

        return sums_spike(self.linear, ann, signed=self.signed, strict=self.strict_spiking)

    @property
    def signed(self) -> bool:
        """Whether every neuron to choose from sends spikes of either sign."""
        return all(NEURONS[one.model].negative for one in self.neurons)

    @property
    def added(self) -> Budget:
        """What may be spent on more units in some layers."""
        from snnconvert.capacity import Budget

        if self.spike_budget is not None:
            return Budget(self.spike_budget, spikes=True)
        share = USUAL_BUDGET if self.budget is None else self.budget
        return Budget(share, by_channel=self.budget_by == "channel")

    @property
    def budget_record(self) -> dict[str, Any]:
        """What a record says of units by channel, which `--levels` cannot."""
        return {"budget": self.added.share} if self.budget_by == "channel" else {}

    @property
    def units_by_site(self) -> bool:
        """Whether layers may differ in their units."""
        return self.spends or (self.levels is not None and len(self.levels) > 1)

    @property
    def spends(self) -> bool:
        """Whether a budget decides how many units each layer has."""
        return self.budget is not None or self.spike_budget is not None or self.levels == AUTO

    @property
    def schedules(self) -> tuple[str, ...]:
        """The kinds of schedule to try: those that can be compared at several T, or serve a neuron that was chosen."""
        if not self.automatic:
            return (self.schedule,)
        if self.compared or self.preprocessing.events is not None:  # there is an answer after every step
            return tuple(kind for kind, row in SCHEDULES.items() if row.anytime)
        tried = [kind for kind, row in SCHEDULES.items() if row.tried or kind in self.schedule.split(",")]
        usual = self.neuron in (Request.neuron, AUTO) and not self.units_by_site and self.units == 1
        return tuple(kind for kind in tried if usual or SCHEDULES[kind].own_neuron is None)

    @property
    def whole(self) -> bool:
        """Whether the schedule gives products, normalisations and smooth functions a form of spikes."""
        return not self.automatic and SCHEDULES[self.schedule].whole

    def for_network(self, ann: Ann) -> Request:
        """The same in the schedule in which all of `ann` spikes, where --strict-spiking leaves no other."""
        from snnconvert.convert.units import needs_windows

        untold = self.schedule == AUTO and not self.gives("timesteps") and self.neuron == Request.neuron
        if self.strict_spiking and untold and not (self.compared or self.units_by_site) and needs_windows(ann):
            return replace(self, schedule=next(kind for kind, row in SCHEDULES.items() if row.whole))
        return self

    @property
    def automatic(self) -> bool:
        """Whether the schedule is chosen among several."""
        return self.schedule.split(",")[0] == AUTO

    def gives(self, option: str) -> bool:
        """Whether the user asks for another value of an option than its default."""
        value, usual = getattr(self, option, None), getattr(type(self), option, None)
        return bool(value) and (not isinstance(value, Usual) if isinstance(usual, Usual) else value != usual)

    @property
    def neurons(self) -> tuple[NeuronChoice, ...]:
        """The neurons to choose from, the cheapest first."""
        from snnconvert.graph.types import NeuronChoice

        if self.neuron != AUTO:
            return (NeuronChoice(self.neuron, self.units),)
        return tuple(NeuronChoice(model.name, model.levels) for model in cheapest_first())

    def with_neuron(self, neuron: NeuronChoice) -> Request:
        """The same request for this neuron alone."""
        alike = None if neuron.levels == NEURONS[neuron.model].levels else (neuron.levels,)
        said = self.units_by_site or self.added_neurons
        return replace(self, neuron=neuron.model, levels=self.levels if said else alike)

    def with_budget(self, share: float) -> Request:
        """The same request with so many more units, or spikes if it counts these, where they help most."""
        if self.spike_budget is None:
            return replace(self, levels=AUTO, budget=share)
        return replace(self, levels=AUTO, spike_budget=share)

    @property
    def compared(self) -> tuple[int, ...]:
        """The steps that this network has to serve, ascending, where there are several: it is compared at each of them
        with a network for it alone."""
        return tuple(sorted({*self.calibrate_for, self.timesteps})) if self.calibrate_for else ()


def check_request(request: Request) -> None:
    """Refuse values outside their range, and options that do not fit each other, before any work.

    Raises:
        OptionError: naming the option, its value and what is allowed.
    """
    check(request)
    if request.label_column is not None and request.label_key is not None:
        raise OptionError(
            f"--label-column {request.label_column} and --label-key {request.label_key} both name the labels",
            hint="leave one of the two out",
            options=("label_column", "label_key"),
        )
    for refuse in (_check_earlier_steps, _check_neuron, _check_schedule, check_replay):
        refuse(request)
    check_studies(request.studies, None if request.automatic else request.schedule)
    check_options(request.calibration, request.options)


def _check_earlier_steps(request: Request) -> None:
    last = request.timesteps
    for steps in request.calibrate_for:
        if not 1 <= steps <= last:
            raise OptionError(
                f"--calibrate-for {steps} is outside 1 to {last}, the timesteps of this network",
                hint="leave it out" + (f", or ask for more steps: -T {steps}" if steps > last else ""),
                options=("calibrate_for", "timesteps"),
            )
        if steps <= (request.read_from or 0):
            raise OptionError(
                f"--calibrate-for {steps} has no answer with --read-from {request.read_from}",
                hint=f"leave one of the two out, or read earlier: --read-from {steps - 1}",
                options=("calibrate_for", "read_from"),
            )


def _check_neuron(request: Request) -> None:
    said = request.levels if isinstance(request.levels, str) else ",".join(map(str, request.levels or ()))
    able = [name for name, model in offered().items() if model.adjustable or model.several]
    choose = f"choose --neuron {' or '.join(able)}"
    if request.neuron == AUTO and request.levels is not None and not request.units_by_site:
        raise OptionError(
            f"--levels {said} does not fit --neuron auto, which tries each neuron with its usual levels",
            hint=f"leave --levels out, or {choose}",
            options=("levels", "neuron"),
        )
    budgets = [name for name in ("budget", "spike_budget") if getattr(request, name) is not None]
    flags = " and ".join(f"--{name.replace('_', '-')}" for name in budgets)
    model = NEURONS.get(request.neuron)
    if model is not None and model.name not in able and (request.units_by_site or request.units != model.levels):
        sends = "one unit" if model.levels == 1 else f"{model.levels} units"
        asked = "several units a step" if request.levels is None else f"--levels {said}"
        raise OptionError(
            f"{asked} does not fit --neuron {request.neuron}, which sends {sends} a step",
            hint=f"{choose}, or leave {flags if request.levels is None else '--levels'} out",
            options=("levels", "neuron"),
        )
    if len(budgets) > 1 or (budgets and request.levels not in (None, AUTO)):
        both = flags if len(budgets) > 1 else f"{flags} and --levels {said}"
        raise OptionError(
            f"{both} say twice how units are given out",
            hint="leave one of the two out",
            options=(*budgets, "levels"),
        )
    if request.budget_by == "channel" and (request.spike_budget is not None or not request.spends):
        raise OptionError(
            "--budget-by channel says how a budget of units is given out, and there is none",
            hint="add --budget 15%" + (" instead of --spike-budget" if request.spike_budget is not None else ""),
            options=("budget_by",),
        )
    if request.added_neurons and not request.units_by_site and not any(one.levels > 1 for one in request.neurons):
        raise OptionError(
            "--added-neurons changes nothing where every neuron sends one unit a step",
            hint="say how many more there may be: --budget 15%, or --levels 2",
            options=("added_neurons",),
        )
    row = SCHEDULES.get(request.schedule)
    several = request.units_by_site or request.levels is not None
    if row is not None and row.own_neuron is not None and (several or request.budgets):
        flags = flags or ("--levels" if several else "--budgets")
        raise OptionError(
            f"--schedule {request.schedule} brings neurons of its own, whose units follow from its windows",
            hint=f"choose --schedule {' or '.join(_kinds(own_neuron=None))}, or leave {flags} out",
            options=("schedule", "levels", "budgets", *budgets),
        )


def _check_schedule(request: Request) -> None:
    chosen, anytime = SCHEDULES.get(request.schedule), _kinds(anytime=True)
    if chosen is not None and chosen.own_neuron is not None and request.neuron != Request.neuron:
        raise OptionError(
            f"--schedule {request.schedule} brings neurons of its own, not --neuron {request.neuron}",
            hint=f"leave --neuron out, or choose --schedule {' or '.join(_kinds(own_neuron=None))}",
            options=("schedule", "neuron"),
        )
    known = owners()
    if request.read_from and chosen is not None and "read_from" not in chosen.options():
        raise OptionError(
            f"--read-from {request.read_from} does not fit --schedule {request.schedule}, which answers window by "
            "window",
            hint=f"leave --read-from out, or choose --schedule {' or '.join(known['read_from'])}",
            options=("read_from", "schedule"),
        )
    for name, kinds in known.items():
        if not request.gives(name):
            continue
        if chosen is not None and chosen.kind not in kinds:
            raise OptionError(
                f"--{name.replace('_', '-')} means nothing to --schedule {request.schedule}",
                hint=f"leave --{name.replace('_', '-')} out, or add --schedule {' or '.join(kinds)}",
                options=(name, "schedule"),
            )
        if chosen is None and not any(SCHEDULES[kind].tried or kind in request.schedule for kind in kinds):
            raise OptionError(
                f"--{name.replace('_', '-')} is for --schedule {' or '.join(kinds)}, which auto does not try",
                hint=f"add --schedule {kinds[0]}, or leave --{name.replace('_', '-')} out",
                options=(name, "schedule"),
            )
        if request.compared and not set(kinds) & set(anytime):
            raise OptionError(
                f"--{name} means nothing with --calibrate-for, which is for {' and '.join(anytime)} networks",
                hint=f"leave one of the two out: --{name} or --calibrate-for",
                options=(name, "calibrate_for"),
            )
    fits = request.automatic or request.schedule in anytime
    methods = [name for name, method in METHODS.items() if "read_at" in method.rows]
    if request.calibrate_for and (request.calibration not in methods or not fits):
        raise OptionError(
            f"--calibrate-for is for --calibration {' or '.join(methods)} and --schedule {' or '.join(anytime)}",
            hint="leave --calibrate-for out, or leave out the other two",
            options=("calibrate_for", "calibration", "schedule"),
        )


def _kinds(**wanted: object) -> list[str]:
    """The schedules with these attributes."""
    return [
        kind for kind, row in SCHEDULES.items() if all(getattr(row, name) == value for name, value in wanted.items())
    ]


# Last of all: what is loaded may import anything that stands below.
plugins.load(neurons.GROUP, neurons.from_entry_point)
plugins.load(calibrate.GROUP, calibrate.from_entry_point)
