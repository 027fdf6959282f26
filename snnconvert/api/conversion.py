"""A conversion with its report, judged by gates: for one number of steps, or for the smallest that meets them."""

from __future__ import annotations

import base64
import html
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snnconvert.api.files import checkpoint_path, save
from snnconvert.api.network import SpikingNetwork
from snnconvert.data.memory import Memory
from snnconvert.errors import BudgetError, GateError, OptionError, SnnConvertError, UserError
from snnconvert.files import together
from snnconvert.gates.limits import Gates
from snnconvert.gates.verdicts import GateResult, Status, check_document, worst_layer
from snnconvert.graph.types import Ann, Snn
from snnconvert.neurons import cheapest_first
from snnconvert.pipeline import Request, run
from snnconvert.progress import Progress, silent
from snnconvert.report.document import write_report
from snnconvert.report.figures import formats_of, on_paper, write_beside
from snnconvert.report.from_run import document_of
from snnconvert.report.sections import SECTIONS, attribution
from snnconvert.report.verdict import metric, verdict
from snnconvert.report.wording import spoken
from snnconvert.target import Attempt, best_of, beyond_the_original, reached, smallest, unreachable

if TYPE_CHECKING:
    import pandas as pd


class Curve(list[dict[str, Any]]):
    """What a network does over time: a list with one row per step.

    A row has `step` (from 1) and, as far as they were measured, what the report's `fit_curve` holds of that step, for
    instance `accuracy` and `agreement` in per cent (None before the first answer) and `spikes_per_image`, which have
    been sent until then.

    Examples:
        >>> import snnconvert
        >>> options = {"timesteps": 4, "schedule": "streaming", "calibration": "mse"}
        >>> curve = snnconvert.convert_model("zoo:digits-cnn", **options).curve
        >>> [row["step"] for row in curve if row["accuracy"] is not None]
        [1, 2, 3, 4]
        >>> bool(curve.to_pandas().loc[4, "accuracy"] == curve[-1]["accuracy"])
        True
    """

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Curve:
        """The curve of a report."""
        columns = dict(document["fit_curve"])
        steps = columns.pop("timesteps")
        kept = {name: one for name, one in columns.items() if isinstance(one, list) and len(one) == len(steps)}
        return cls({"step": step, **{name: one[at] for name, one in kept.items()}} for at, step in enumerate(steps))

    def to_pandas(self) -> pd.DataFrame:
        """A pandas DataFrame whose index is `step`.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise UserError(
                "pandas is not installed", hint="pip install pandas; the curve itself is a list of dicts"
            ) from error
        return pd.DataFrame(list(self)).set_index("step")


@dataclass(frozen=True, repr=False)
class Conversion:
    """A converted network, how it did, and its report.

    Attributes:
        snn: the spiking network, which can be called.
        report: the document that report.json holds.
        ann: the original network in canonical form: `ann.graph(x)` gives a tuple of its outputs.
        failed: why a gate was missed; empty if none was.
        advice: what would help then.
        data: where the evaluation images can be found again; None if they were in memory.

    Examples:
        >>> import snnconvert
        >>> conversion = snnconvert.convert_model("zoo:digits-cnn", timesteps=8, schedule="streaming", limit=50)
        >>> conversion.accuracy, conversion.ann_accuracy  # per cent
        (100.0, 100.0)
        >>> conversion.curve[-1]["step"]
        8
        >>> [path.name for path in conversion.save("digits-cnn.snn")]
        ['digits-cnn.snn', 'digits-cnn.html', 'digits-cnn.json']
    """

    snn: SpikingNetwork
    report: dict[str, Any]
    ann: Ann
    failed: str = ""
    advice: str = ""
    data: str | None = None

    @property
    def final(self) -> dict[str, Any]:
        """The figures at the last step: `analysis.final` of the report; empty if nothing was measured."""
        return dict(self.report["analysis"]["final"] or {})

    @property
    def accuracy(self) -> float | None:
        """Of the spiking network after T steps, per cent; None without labels."""
        found: float | None = self.final.get("accuracy")
        return found

    @property
    def ann_accuracy(self) -> float | None:
        """Of the original network on the same images, per cent; None without labels."""
        found: float | None = self.report["ann"]["accuracy"]
        return found

    @property
    def agreement(self) -> float | None:
        """Images on which both networks give the same answer, per cent."""
        found: float | None = self.final.get("agreement")
        return found

    @property
    def timesteps(self) -> int:
        """T: steps from the first input to the answer."""
        return self.snn.timesteps

    @property
    def curve(self) -> Curve:
        """What the network does over time, a row per step."""
        return Curve.of(self.report)

    def save(
        self,
        path: str | Path,
        *,
        report: bool = True,
        original: bool = True,
        csv: bool = False,
        markdown: bool = False,
        figures: str | None = None,
    ) -> list[Path]:
        """Write the checkpoint, and beside it the report as STEM.html and STEM.json.

        Args:
            path: of the checkpoint; it has to end in .snn.
            report: whether to write the report.
            original: keep the original network in the checkpoint, too.
            csv, markdown, figures: what else to write, as with the options of `snnconvert convert`; figures is "svg",
                "png" or "svg,png".

        Returns:
            What was written, the checkpoint first.

        Raises:
            OptionError: another suffix.
            OutputError: a place that cannot be written.
        """
        path = checkpoint_path(path)
        formats_of(figures)
        page = path.with_suffix(".html")
        document = {**self.report, "next_commands": self.report["next_commands"] or next_commands(path, self.data)}
        with together():
            written = [save(self.snn, path, original=original)]
            if report:
                written += write_report(document, page)
                written += write_beside(document, page, csv=csv, markdown=markdown, figures=figures)
        return written

    def __repr__(self) -> str:
        return f"Conversion({self.snn!r}: {verdict(self.report)})"

    def _repr_html_(self) -> str:
        """The verdict and the curve, for notebooks."""
        import vl_convert

        found = [f"<p><b>{html.escape(verdict(self.report))}</b></p>"]
        spec = next((one for one in SECTIONS["curve"].charts(self.report).values() if one is not None), None)
        if spec is not None:
            drawn = base64.b64encode(vl_convert.vegalite_to_svg(on_paper(spec)).encode()).decode()
            shown = f'alt="{metric(self.report).title} over time" style="max-width:100%"'
            found.append(f'<img {shown} src="data:image/svg+xml;base64,{drawn}">')
        warned = [spoken(self.report, row["text"]) for row in self.report["warnings"]]
        found += [f"<p>&#9888; {html.escape(text)}</p>" for text in warned]
        return "\n".join([*found, f"<p><small>{html.escape(repr(self.snn))}</small></p>"])

    def __getattr__(self, name: str) -> Any:
        """What `convert_model` returned before it returned conversions: the spiking network itself."""
        if name.startswith("_") or name not in {one.name for one in fields(Snn)} | {"provenance"}:
            raise AttributeError(f"Conversion has no attribute {name!r}; its network is conversion.snn")
        warnings.warn(
            f"convert_model returns a Conversion now: use conversion.snn.{name}", DeprecationWarning, stacklevel=2
        )
        return getattr(self.snn, name)


def next_commands(checkpoint: Path, data: str | None) -> list[str]:
    """What to type next."""
    return [*([f"snnconvert run {checkpoint} --data {data}"] if data else []), f"snnconvert info {checkpoint}"]


@dataclass(frozen=True)
class Order:
    """What is to be converted and judged.

    Attributes:
        request: what is asked for.
        gates: what the result has to meet.
        memory: what of it is in memory.
        command_line: what the user typed.
        checkpoint: where the result will be written, if that is known.
        progress: shows how far the work is.
        say: takes remarks; without it nobody hears them.
    """

    request: Request
    gates: Gates = field(default_factory=Gates)
    memory: Memory = field(default_factory=Memory)
    command_line: str = ""
    checkpoint: Path | None = None
    progress: Callable[[], AbstractContextManager[Progress]] = lambda: nullcontext(silent)
    say: Callable[[str], object] = str


def converted(order: Order) -> Conversion:
    """The conversion, with what the gates say."""
    gates = order.gates
    with order.progress() as progress:
        outcome = run(order.request, progress, memory=order.memory, say=order.say)
    data = outcome.request.data if order.memory.data is None else None
    following = () if order.checkpoint is None else tuple(next_commands(order.checkpoint, data))
    document = document_of(outcome, command_line=order.command_line, next_commands=following)
    made = Conversion(SpikingNetwork.of(outcome.snn), document, outcome.ann, data=data)
    if not gates.conditions():
        return made
    result = check_document(document, gates)
    document["gates"] = result.section()
    if result.ok:
        return made
    cause, advice = _advice(document, gates, result)
    text = "; ".join(verdict.text for verdict in result.verdicts)
    return replace(made, failed=f"gate failed: {text}" + (f" ({cause})" if cause else ""), advice=advice)


def _advice(document: dict[str, Any], gates: Gates, result: GateResult) -> tuple[str, str]:
    """Why a gate failed, as far as that is known, and what to do."""
    if not document["evaluation"]["labelled"] and (gates.max_drop, gates.min_accuracy) != (None, None):
        return "", "give --data with labels"
    if result.status == Status.cannot_tell:
        return "", "evaluate on more images (--limit, --data), or leave --strict out"
    if beyond := beyond_the_original(document, gates):
        return beyond, "ask for less, or convert a more accurate network"
    known = (attribution.culprit(document) or ("", ""))[1]
    return result.worst_layer or "", known or "ask for less, or give more timesteps"


def converted_in_fewest_steps(order: Order) -> Conversion:
    """The conversion for the smallest T that meets the gates.

    Raises:
        GateError: none does.
        OptionError: no gates, or what does not fit them.
    """
    request = order.request
    if not order.gates.conditions():
        targets = "--max-drop 1.0, --min-accuracy 90, --max-error 5 or --min-r2 0.99"
        raise OptionError("--timesteps auto has no target", hint=f"add {targets}")
    by_labels = (order.gates.max_drop, order.gates.min_accuracy) != (None, None)
    unlabelled = OptionError(
        "--timesteps auto needs labelled images to judge by"
        + (f", and {request.data} holds no labels" if request.data else ""),
        hint="give --data with labels",
    )
    if by_labels and request.data is None and not request.model.startswith("zoo:"):
        raise unlabelled
    for option in ("calibrate_for", "frontier", "budgets"):
        if getattr(request, option):
            raise OptionError(
                f"--{option.replace('_', '-')} does not fit --timesteps auto",
                hint="find T first, then convert once more with -T and this option",
            )
    wanted = replace(order.gates, uncertain="measured")
    kept: dict[int, Conversion] = {}

    def attempt(timesteps: int) -> Attempt | None:
        try:
            made = converted(replace(order, request=replace(request, timesteps=timesteps), gates=wanted))
        except BudgetError:
            return None
        if by_labels and not made.report["evaluation"]["labelled"]:
            raise unlabelled
        if made.failed and (beyond := beyond_the_original(made.report, wanted)):
            raise missed(replace(made, failed=f"unreachable: {beyond}"))
        kept[timesteps] = made
        order.say(f"T = {timesteps}: {reached(made.report)}, {'holds' if not made.failed else 'misses'}")
        return Attempt(timesteps, not made.failed, made.report)

    best, tried = smallest(attempt)
    if best is None:
        nearest = best_of(tried) if tried else None
        finer = " or ".join(model.name for model in cheapest_first() if model.memory)
        advice = "allow a larger drop" + (f", or try --neuron {finer}" if request.neuron == Request.neuron else "")
        error = GateError(unreachable(nearest, worst_layer(nearest.document) if nearest else None), hint=advice)
        error.conversion = kept[nearest.timesteps] if nearest else None
        raise error
    made = kept[best.timesteps]
    rows = [{**one.row(), "chosen": one is best} for one in sorted(tried, key=lambda one: one.timesteps)]
    made.report["candidates"] = rows + made.report["candidates"]
    return made


def missed(conversion: Conversion) -> SnnConvertError:
    """The error of a conversion that misses a gate, which it holds all the same."""
    error = GateError(conversion.failed, hint=conversion.advice)
    error.conversion = conversion
    return error
