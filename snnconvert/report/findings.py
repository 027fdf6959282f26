"""What a reader of a report must be told before believing it: one function per warning."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from snnconvert.report.sections import shift
from snnconvert.report.verdict import guesses
from snnconvert.report.wording import at_time, milliseconds
from snnconvert.tasks import METRICS, TASKS

Document = Mapping[str, Any]
# A drop known to be smaller than this many points needs no larger sample.
_NEGLIGIBLE = 0.5


def warnings_for(document: Document) -> list[dict[str, str]]:
    """Warnings {code, text, hint} that the numbers of a report call for, most serious first."""
    return [{"code": code, **found} for code, rule in RULES.items() if (found := rule(document)) is not None]


def _warning(text: str, hint: str) -> dict[str, str]:
    return {"text": text, "hint": hint}


def _no_answer(document: Document) -> dict[str, str] | None:
    if document["analysis"]["final"] is not None:
        return None
    total = document["latency"]["total"]
    return _warning(
        f"The network gave no answer within {total} timesteps, or nothing was evaluated.",
        "Use more timesteps, a shorter wait, or more evaluation images.",
    )


def _comparison(document: Document) -> dict[str, str] | None:
    compared = document["comparison"] or {}
    difference, tolerance = compared.get("max_difference"), compared.get("tolerance") or 1e-3
    if difference is None or difference <= tolerance:
        return None
    return _warning(
        f"The imported network differs from {compared.get('runtime', 'onnxruntime')} by {difference:.3g} "
        f"(allowed: {tolerance:.3g}), so the conversion may have started from a misread model.",
        "Please report the model: the import must match.",
    )


def _near_chance(document: Document) -> dict[str, str] | None:
    if not guesses(document):
        return None
    accuracy, classes = document["ann"]["accuracy"], document["evaluation"]["classes"]
    causes = (
        "wrong normalisation (mean, standard deviation, 0..1 or 0..255), wrong channel order (RGB or BGR, channels "
        "first or last)"
    )
    if milliseconds(document) is not None:
        causes = (
            "another --scale or --std than in training, recordings of another length (-T), polarities in another order "
            "(channel 0 is polarity 0)"
        )
    return _warning(
        f"The original network itself scores {accuracy:.1f} % on the labelled images, close to guessing among "
        f"{classes} classes ({100 / classes:.1f} %): the accuracies below mean nothing.",
        f"Likely causes: {causes}, labels off by one (a background class), or classes in another order (class folders "
        "are numbered by their sorted names).",
    )


def _constant(document: Document) -> dict[str, str] | None:
    answers, samples = document["evaluation"].get("answers") or {}, document["evaluation"]["samples"]
    who = [name for name, key in (("original", "ann"), ("spiking", "snn")) if answers.get(key) == 1]
    if samples < 2 or not who:
        return None
    networks = "Both networks give" if len(who) == 2 else f"The {who[0]} network gives"
    return _warning(
        f"{networks} one and the same class for all {samples:,} inputs: agreement between them means nothing.",
        "Check the preprocessing, give inputs of several classes, or add --task regression if the outputs are numbers.",
    )


def _calibrated_on_evaluation(document: Document) -> dict[str, str] | None:
    evaluation, calibration = document["evaluation"], document["calibration"]
    same = evaluation["fingerprint"] is not None and evaluation["fingerprint"] == calibration["fingerprint"]
    if not same or evaluation["excluded_calibration"]:
        return None
    return _warning(
        "Calibration and evaluation used the same images, so the accuracy is too optimistic.",
        "Evaluate on images that calibration has not seen.",
    )


def _synthetic(document: Document) -> dict[str, str] | None:
    if not document["calibration"]["synthetic"]:
        return None
    return _warning(
        "Thresholds were calibrated on synthetic images, not on real ones; they are probably not the best.",
        "Give a few hundred real images for calibration; labels are not needed.",
    )


def _unlabelled(document: Document) -> dict[str, str] | None:
    if document["evaluation"]["labelled"] or not document["evaluation"]["samples"]:
        return None
    task = TASKS[document["task"]["kind"]]
    if not task.labels:
        return None
    return _warning(
        "There are no labels: the report shows how near the spiking network comes to the original, not how right both "
        "are.",
        f"Give labels: {task.labels}.",
    )


def _sample_too_small(document: Document) -> dict[str, str] | None:
    final, samples = document["analysis"]["final"], document["evaluation"]["samples"]
    paired = document["analysis"]["paired"]
    if final is None or final["drop"] is None or final["drop"] <= 0 or not samples:
        return None
    drop = final["drop"]
    if paired is not None:
        low, high = paired["drop_interval"]
        if low > 0 or max(abs(low), abs(high)) <= _NEGLIGIBLE:
            return None
        return _warning(
            f"{samples:,} images cannot tell a drop of {drop:.2f} points from none (95 % interval {low:+.2f} to "
            f"{high:+.2f}, McNemar p = {paired['p_value']:.2f}).",
            "Evaluate on more images.",
        )
    low, high = document["fit_curve"]["accuracy_interval"][-1] or (0.0, 0.0)
    if high - low <= max(drop, 2 * _NEGLIGIBLE):
        return None
    return _warning(
        f"{samples:,} images are too few to tell the size of the drop: the accuracy is only known to lie between "
        f"{low:.1f} and {high:.1f} %, wider than the measured drop of {drop:.2f} points.",
        "Evaluate on more images.",
    )


def _falls(document: Document) -> dict[str, str] | None:
    fall, basis = document["analysis"]["fall"], document["milestones"]["basis"]
    if fall is None:
        return None
    metric = METRICS[basis]
    ways = ("rises", "falls") if metric.better == "higher" else ("falls", "rises")
    peak = at_time(document, fall["peak_t"])
    return _warning(
        f"The {metric.title} {ways[0]} to {fall['peak']:.1f} % at {peak} and then {ways[1]} to {fall['final']:.1f} %: "
        "rates drift away from the calibrated ones.",
        "Calibrate for the T that will be used, and look for the first layer whose error stops falling.",
    )


def _rising(document: Document) -> dict[str, str] | None:
    settled, final = document["analysis"]["plateau"], document["analysis"]["final"]
    basis = document["milestones"]["basis"]
    if settled is None or final is None or final["value"] is None:
        return None
    gain = settled["value"] - final["value"]
    if gain < max(1.0, 3 * settled["error"]):
        return None
    return _warning(
        f"The {basis} is still rising at the last step: a fit of the curve expects about {gain:.1f} points more "
        "with more timesteps.",
        "Use more timesteps, or a calibration made for few of them.",
    )


def _bound(document: Document) -> dict[str, str] | None:
    # Early excess is normal below the first layer (inputs still settle) and is only marked in the charts; what is sent
    # in a single window has nothing to settle.
    late = [
        (layer, max(point["ratio"] for point in layer["violations"] if point["t"] >= layer["fit"][-1]["t"] / 2))
        for layer in document["layers"]
        if layer["violations"] and len(layer["fit"]) > 1 and layer["violations"][-1]["t"] >= layer["fit"][-1]["t"] / 2
    ]
    if not late:
        return None
    return _warning(
        f"{len(late)} of {len(document['layers'])} layers exceed the bound 2 Omega / T even in the second half of the "
        f"run (up to {max(ratio for _, ratio in late):.1f} times), first {late[0][0]['origin']}: their spike rates do "
        "not settle on the activations they stand for.",
        "Look at the first such layer: more steps, a wait between layers, or a new calibration help.",
    )


def _dead(document: Document) -> dict[str, str] | None:
    dead = [layer for layer in document["layers"] if layer["spikes_per_image"] == 0 or layer["dead_share"] == 1]
    if not dead:
        return None
    return _warning(
        f"{len(dead)} of {len(document['layers'])} layers never spiked, first {dead[0]['origin']}: nothing passes "
        "through them.",
        "Thresholds there are too high for the input: images are not scaled as in training, or those that are measured "
        "not as those of the calibration.",
    )


RULES: dict[str, Callable[[Document], dict[str, str] | None]] = {
    "no_answer": _no_answer,
    "import_differs": _comparison,
    "ann_near_chance": _near_chance,
    "constant_answer": _constant,
    "calibrated_on_evaluation": _calibrated_on_evaluation,
    "calibration_shift": shift.warning,
    "dead_layer": _dead,
    "curve_falls": _falls,
    "curve_rising": _rising,
    "bound_violated": _bound,
    "sample_too_small": _sample_too_small,
    "synthetic_calibration": _synthetic,
    "unlabelled": _unlabelled,
}
