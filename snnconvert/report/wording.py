"""How a report speaks: numbers, names and the one sentence that sums it up. Shared by all renderings."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from snnconvert.graph.schedule import SCHEDULES, Schedule
from snnconvert.report.statistics import near_chance

DASH = "–"
CAUSES = {
    "clipping": "clipping (activations above the threshold cannot be sent)",
    "quantisation": "quantisation (too few levels in T steps)",
    "unevenness": "unevenness (spikes sent before the whole input was in)",
    "propagation": "propagation (handed on by earlier layers)",
}
REMEDIES = {
    "clipping": "Higher thresholds help: --calibration percentile --percentile 99.99, or --neuron burst, which may "
    "send several spikes at once. Higher thresholds make each spike coarser; bursts need hardware that can send them.",
    "clipping, burst": "Higher thresholds help: --calibration percentile --percentile 99.99, or more --levels. Higher "
    "thresholds make each spike coarser; more levels need hardware that can send them.",
    "quantisation": "More timesteps help: twice the -T halves it and doubles spikes and latency. --neuron graded gets "
    "there without more steps, on hardware whose spikes carry numbers.",
    "quantisation, graded": "More timesteps help: twice the -T halves it and doubles spikes and latency. So do more "
    "--levels, on hardware whose spikes carry numbers so fine.",
    "unevenness, ternary": "--schedule wait --wait 1 helps: each layer listens for a step before it sends, which adds "
    "a step of latency per layer.",
    "unevenness": "--schedule wait --wait 1 helps: each layer listens for a step before it sends, which adds a step of "
    "latency per layer. --neuron ternary helps without waiting: it takes back spikes, on hardware with signed spikes.",
}
# a drop surely larger than this many points makes a saving worthless
_LARGE_DROP = 2.0


def clean(text: object) -> str:
    """One line of printable text: control characters (escape sequences in a model's name, say) become "\\ufffd"."""
    return "".join(c if c.isprintable() else " " if c in "\n\r\t" else "\ufffd" for c in str(text))


def neuron(document: Mapping[str, Any]) -> str:
    """The neuron model that replaces the activations, in a reader's words."""
    given = document["neuron"]
    model = str(given["model"] if isinstance(given, dict) else given)
    return "binary" if model == "if" else model


def schedule(document: Mapping[str, Any]) -> type[Schedule] | None:
    """The class of the schedule that a report names; None for one that is not known here."""
    return SCHEDULES.get((document.get("schedule") or {}).get("kind", ""))


def label(origin: str) -> str:
    """A layer's name without its operator, short enough for an axis."""
    return re.sub(r" \([^()]*\)$", "", clean(origin))


def fixed(value: float | None, digits: int = 1, unit: str = "") -> str:
    """A rounded number with thousands separators, or a dash."""
    if value is None:
        return DASH
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return f"{round(value, digits) + 0.0:,.{digits}f}{unit}"


def percent(value: float | None, digits: int = 1) -> str:
    """A percentage given as 0..100."""
    return fixed(value, digits, " %")


def share(value: float | None, digits: int = 1) -> str:
    """A percentage given as 0..1."""
    return DASH if value is None else percent(100.0 * value, digits)


def short(value: float | None) -> str:
    """A number of any size in three digits."""
    return DASH if value is None else f"{value:.3g}"


def count(value: float | None) -> str:
    """A count with thousands separators; one decimal below ten."""
    return DASH if value is None else fixed(value, 0 if value >= 10 or value == int(value) else 1)


def slug(text: object) -> str:
    """A name for a column: small letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", clean(text).lower()).strip("_")


def plural(number: int, noun: str) -> str:
    """`1 image`, `1,000 images`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def interval(document: Mapping[str, Any]) -> tuple[float, float] | None:
    """The 95 % interval of the accuracy at the last step that has an answer."""
    final, curve = document["analysis"]["final"], document["fit_curve"]
    if final is None:
        return None
    found = curve["accuracy_interval"][curve["timesteps"].index(final["t"])]
    return None if found is None else (found[0], found[1])


def headline(document: Mapping[str, Any]) -> str:
    """What was found, in plain words: a failed gate, accuracy, drop, T, spikes; and whether it saves energy."""
    gates = document.get("gates")
    failed = f"Gate failed: {clean(gates['text'])} " if gates and gates["status"] == "failed" else ""
    saving = energy_sentence(document)
    return failed + accuracy_sentence(document) + (f" {saving}" if saving else "")


def energy_sentence(document: Mapping[str, Any]) -> str | None:
    """Whether the network saves energy at its T, by the estimate; None without one, or if the ANN merely guesses.

    A saving is only claimed for a network that still does its task: not after a failed gate, nor for a drop that is
    surely larger than two points, nor for a network that hardly does better than guessing.
    """
    estimate, final = document["energy"], document["analysis"]["final"]
    if not estimate or final is None or any(row["code"] == "ann_near_chance" for row in document["warnings"]):
        return None
    ratios = [row["ratio"] for row in estimate["rows"] if row["decides"] and row["ratio"] is not None]
    low, high, at = min(ratios), max(ratios), f"at T = {document['latency']['total']}"
    if estimate["verdict"]["code"] == "does_not_save":
        return f"It does not save energy {at}: by estimate {times(low)} to {times(high)} times what integer ANNs need."
    if estimate["verdict"]["code"] == "cannot_tell":
        return (
            f"Whether it saves energy {at} cannot be told: by estimate {times(low)} to {times(high)} times what "
            "integer ANNs need, depending on their width and on memory."
        )
    saving = f"{times(1 / high)} to {times(1 / low)} times less than integer ANNs"
    gates, pair = document.get("gates"), document["analysis"]["paired"]
    if gates and gates["status"] == "failed":
        return f"It would save energy {at} (by estimate {saving}), but it failed its gate."
    surely = pair["drop_interval"][0] if pair else (final["drop"] or 0.0)
    classes, accuracy = document["evaluation"]["classes"], final["accuracy"]
    guesses = bool(classes) and accuracy is not None and near_chance(accuracy, classes)
    if surely > _LARGE_DROP or guesses:
        but = "is no longer as accurate" if surely > _LARGE_DROP else "hardly does better than guessing"
        return f"It would save energy {at} (by estimate {saving}), but it {but}."
    return f"It saves energy {at}: by estimate {saving}."


def culprit(document: Mapping[str, Any]) -> tuple[str, str] | None:
    """Where error starts and why, and which options would help at what cost; None where no layer adds much.

    No option is named for a network that is measured to be as accurate as the original: there is nothing to repair.
    """
    section = document.get("attribution")
    found = section["culprit"] if section else None
    if not section or not found:
        return None
    whole = max((row["error"] or 0.0 for row in section["layers"]), default=0.0)
    last = section["layers"][-1]
    local = list(CAUSES)[:3]
    totals = {
        cause: sum((row.get("causes", {}).get(cause) or 0.0) ** 2 for row in section["layers"]) for cause in local
    }
    most = max(local, key=lambda cause: (totals[cause], cause == found["cause"]))
    other = "" if most == found["cause"] else f" Over all layers it is {CAUSES[most]} that adds most."
    there = next((row["error"] for row in section["layers"] if row.get("name") == found["layer"]), None)
    back = there is not None and found["size"] > there
    text = (
        f"The first layer to add much error is {clean(found['origin'])}, by {CAUSES[found['cause']]}: "
        f"{percent(100 * found['size'])} of the size of its activations"
        f"{f', of which other causes take back all but {share(there)}' if back else ''}.{other} The last layer is off "
        f"by {share(last['error'])}{_common(last)}, the worst by {percent(100 * whole)}."
    )
    final = (document.get("analysis") or {}).get("final") or {}
    if final.get("drop") is not None and final["drop"] <= 0:
        return f"{text} It costs no accuracy: on the evaluation images the SNN is as accurate as its original.", ""
    row, models = schedule(document), (document.get("neuron") or {}).get("model") or ""
    kin = {"graded": ("graded", "burst"), "ternary-late": ("ternary",)}
    near = [one for model in models.split(", ") for one in kin.get(model, (model,))]  # in use: no advice
    own = row.remedies if row else {}
    wanted = [
        own.get(cause) or REMEDIES[next((key for one in near if (key := f"{cause}, {one}") in REMEDIES), cause)]
        for cause in dict.fromkeys((found["cause"], most))
    ]
    return text, " ".join(wanted)


def _common(row: Mapping[str, Any]) -> str:
    """What of a layer's error is no factor on all of its rates, where that is most of the squared error."""
    error, left = row["error"], row.get("scaled_error")
    if error is None or left is None or left**2 > 0.5 * error**2:
        return ""
    return f" (by {share(left)} but for a factor that all its rates have in common)"


def precision(section: Mapping[str, Any] | None, timesteps: int) -> str | None:
    """What rounded weights do to the answers, beside float32; None where nothing was rounded."""
    if not section:
        return None
    same = f"{percent(section['same_answers'], 2)} of the answers at T = {timesteps} stay"
    told = f"With weights in {section['name']} {same}"
    if section["accuracy"] is None:
        return f"{told}."
    return f"{told}; accuracy {percent(section['accuracy'], 2)}, in float32 {percent(section['float32_accuracy'], 2)}."


def early_exit(document: Mapping[str, Any]) -> str | None:
    """What stopping clear images early saves; None without it."""
    found = document.get("early_exit")
    if not found:
        return None
    right = "" if found["accuracy"] is None else f" at {percent(found['accuracy'], 2)} accuracy"
    return (
        f"With early exit at a margin of {short(found['margin'])} an image takes {fixed(found['mean_steps'], 1)} steps "
        f"on average and {found['worst_steps']} at worst{right}; {percent(found['agreement'], 2)} of the answers are "
        f"those of the last step ({percent(100 * found['share'], 1)} were asked for on "
        f"{plural(found['calibration_images'], 'calibration image')})."
    )


def chip_lines(document: Mapping[str, Any]) -> list[str]:
    """How the network fits a chip: what it breaks, and its accuracy within the chip's bits; empty without a target."""
    chip = document.get("chip")
    if not chip:
        return []
    broken, name = chip["violations"], clean(chip["target"]["name"])
    lines = [f"{name}: {plural(len(broken), 'limit')} broken" if broken else f"{name}: no known limit is broken"]
    lines += [
        f"  {clean(row['layer'])}: {clean(row['text'])} ({clean(row['limit']).replace('_', ' ')} {row['allowed']})"
        for row in broken
    ]
    last = max((row["timesteps"] for row in chip.get("runs", [])), default=0)
    lines += [
        f"  {row['weight_bits']}-bit weights, {row['state_bits']}-bit membranes, T = {last}: "
        f"{percent(100 * row['correct'] / max(1, row['samples']), 2)} of {plural(row['samples'], 'image')} right"
        for row in chip.get("runs", [])
        if row["timesteps"] == last
    ]
    return lines


def crossings(document: Mapping[str, Any]) -> str | None:
    """Up to which T the network has needed less than each integer ANN, in one sentence; None without counts."""
    spent = (document["energy"] or {}).get("over_time")
    if not spent:
        return None
    told = []
    for row in spent["rows"]:
        if row["baseline"].startswith("fp32"):
            continue
        above = [t for t, ratio in zip(spent["timesteps"], row["ratio"], strict=True) if ratio is None or ratio >= 1]
        until = above[0] - 1 if above else spent["timesteps"][-1]
        known = f"up to T = {until}" if until < spent["timesteps"][-1] else "at every T"
        told.append(f"{clean(row['baseline'])}, {clean(row['scope'])}: {known if until else 'at no T'}")
    return f"The SNN has needed less, against {'; '.join(told)}." if told else None


def times(ratio: float) -> str:
    """A ratio in two digits, without an exponent."""
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.2g}"


def accuracy_sentence(document: Mapping[str, Any]) -> str:
    """Accuracy, drop, T and spikes in one sentence."""
    final, samples = document["analysis"]["final"], document["evaluation"]["samples"]
    name = clean(document["model"]["name"])
    if final is None:
        total = plural(document["latency"]["total"], "timestep")
        return f"The spiking form of {name} gave no answer that could be measured in {total}."
    cost = f"after {plural(final['t'], 'timestep')}"
    if final["spikes_per_image"] is not None:
        cost += f" and about {count(final['spikes_per_image'])} spikes per image"
    if final["accuracy"] is None:
        return (
            f"The spiking form of {name} gives the same answer as the original network on "
            f"{percent(final['agreement'])} of {plural(samples, 'image')} {cost}; without labels nobody can say how "
            "many of these answers are right."
        )
    right = f"{percent(final['accuracy'])} of {plural(samples, 'image')}"
    text = f"The spiking form of {name} classifies {right} correctly {cost}"
    if final["drop"] is not None:
        text += f", {difference(final['drop'])} the original network's {percent(document['ann']['accuracy'])}"
    return text + "."


def difference(drop: float) -> str:
    """`0.5 points below`, `as good as`, `0.3 points above`."""
    if abs(drop) < 0.005:
        return "exactly as many as"
    digits = 1 if abs(drop) >= 0.1 else 2
    return f"{abs(drop):.{digits}f} points {'below' if drop > 0 else 'above'}"


def certainty(document: Mapping[str, Any]) -> str | None:
    """How far the measured accuracy and drop can be trusted, as one sentence."""
    pair, band = document["analysis"]["paired"], interval(document)
    if band is None:
        return None
    images = plural(document["evaluation"]["samples"], "image")
    text = (
        f"As far as {images} can tell, the true accuracy lies between {band[0]:.1f} and {band[1]:.1f} % (95 % interval)"
    )
    if pair is not None:
        low, high = pair["drop_interval"]
        text += (
            f", and the true drop between {low:+.1f} and {high:+.1f} points (paired, McNemar p = {pair['p_value']:.2g})"
        )
    return text + "."


def milestones(document: Mapping[str, Any]) -> list[tuple[str, int | None, float | None, float | None]]:
    """Rows (goal, T, value in percent at T, spikes per image at T); none where the ANN's accuracy is not known."""
    found, curve = document["milestones"], document["fit_curve"]
    basis = found["basis"]
    if basis == "accuracy" and document["ann"]["accuracy"] is None:
        return []
    goal = "of the ANN's accuracy" if basis == "accuracy" else "of full agreement"
    rows = []
    for points in ("0.5", "1", "2"):
        t = found[f"within_{points}"]
        index = None if t is None else curve["timesteps"].index(t)
        value = None if index is None else curve[basis][index]
        spikes = None if index is None else curve["spikes_per_image"][index]
        rows.append((f"within {points} point{'' if points == '1' else 's'} {goal}", t, value, spikes))
    return rows


def flat(section: Mapping[str, Any] | str, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(key, value) rows of a section, nested mappings joined by a dot; nulls and empty lists are left out."""
    if isinstance(section, str):
        yield "model", clean(section)
        return
    for key, value in section.items():
        name = f"{prefix}{clean(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}: ")
        elif isinstance(value, list) and value and all(isinstance(item, str) for item in value):
            yield name, "; ".join(clean(item) for item in value)
        elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
            yield name, f"{plural(len(value), 'row')} in the JSON report"
        elif isinstance(value, bool):
            yield name, "yes" if value else "no"
        elif value is not None and value != []:
            yield name, clean(value) if isinstance(value, str) else clean(json.dumps(value, ensure_ascii=False))


def last_error(layer: Mapping[str, Any]) -> float | None:
    """K of a layer at its last measured step."""
    return layer["fit"][-1]["k"] if layer["fit"] else None


def first_spikes(layer: Mapping[str, Any]) -> str:
    """Steps by which 10, 50 and 90 % of a layer's spiking neurons have spiked, `1 / 3 / 11`."""
    found = layer.get("first_spike")
    if not found or found["p50"] is None:
        return DASH
    return " / ".join(str(found[f"p{percent}"]) for percent in (10, 50, 90))
