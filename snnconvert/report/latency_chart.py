"""The picture that a report is about: how good the answer is against the time that it takes.

The chosen network at every step with its band, the other schedules that were tried behind it, the original network, and
the steps that were asked for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from snnconvert.report.drawing import BLUE, GREY, ORANGE, TEAL, alike, data, finish, tips
from snnconvert.report.section import Document, Spec
from snnconvert.report.verdict import answer_step, answers, metric
from snnconvert.report.wording import at_time, clean, milliseconds, moment, percent, schedule, spoken
from snnconvert.tasks import METRICS

# from so many steps on, the axis of time is logarithmic: what is worth seeing happens in the first few
_LONG = 16
_HEIGHT = 300
# for the page: the height on a phone, and how wide an entry of the legend is, in pixels
_FITTING = {"narrow": 230, "entry": 290}
_STAND_IN = "stand-in"
TIME = "T (timesteps since the first input)"


def series(document: Document) -> dict[str, list[Spec]]:
    """What is drawn: for each name in the legend rows {t, value, who}.

    `who` tells the curves of one name apart; of a schedule that answers once there is one row.
    """
    used, curve = metric(document), document["fit_curve"]
    chosen = f"this network, {name(document)}"
    found: dict[str, list[Spec]] = {f"{chosen}: {used.title}": _points(curve["timesteps"], curve[used.name], chosen)}
    others = [row for row in document["candidates"] if row["eligible"] and not row["chosen"]]
    if used.name == "accuracy" and others:
        # What was tried is known by how it agrees with the original alone: this network's stands beside it.
        own = next((row["curve"] for row in document["candidates"] if row["chosen"] and row.get("curve")), None)
        drawn = own or {"steps": curve["timesteps"], "values": curve[curve["metric"]]}
        found[AS_ORIGINAL] = _points(drawn["steps"], drawn["values"], AS_ORIGINAL)
    for row in others:
        drawn = row.get("curve") or {"steps": [row["timesteps"]], "values": [row["agreement"]]}
        if drawn.get("metric", "agreement") not in (used.name, curve["metric"]) or None in drawn["steps"]:
            continue
        title = TRIED_CHEAPLY if drawn.get("ranked_by") == _STAND_IN else TRIED
        found.setdefault(title, []).extend(_points(drawn["steps"], drawn["values"], row["name"]))
    if fitted := fitted_points(document, used.name):
        found[FITTED] = [{**row, "who": FITTED} for row in fitted]
    return {title: rows for title, rows in found.items() if rows}


AS_ORIGINAL = "this network, against the original"
TRIED = "other schedules tried"
TRIED_CHEAPLY = "other schedules, by a cheap stand-in"
OTHERS = (TRIED, TRIED_CHEAPLY)
FITTED = "a network fitted for each T"
_LOOKS = {
    AS_ORIGINAL: (BLUE, [2, 3]),
    TRIED: (ORANGE, [1, 0]),
    TRIED_CHEAPLY: (ORANGE, [4, 3]),
    FITTED: (TEAL, [8, 3]),
}


def _points(steps: Sequence[int], values: Sequence[float | None], who: str) -> list[Spec]:
    return [
        {"t": t, "value": value, "who": clean(who)} for t, value in zip(steps, values, strict=True) if value is not None
    ]


def fitted_points(document: Document, key: str) -> list[Spec]:
    """{t, value} of the networks that were calibrated for one T each."""
    found = {row["T"]: row["value"] for row in document["frontier"] or [] if row["metric"] == key}
    found |= {row["t"]: row["own"].get(key) for row in (document["anytime"] or {}).get("rows", [])}
    return [{"t": t, "value": value} for t, value in sorted(found.items()) if value is not None]


def name(document: Document) -> str:
    """The schedule in a few words, and its neurons where it has a choice."""
    row = schedule(document)
    return clean(row.title(document["schedule"]) if row else document["schedule"]["kind"])


def explained(document: Document) -> str:
    """What the picture shows, for those who have not seen one before."""
    drawn, used = series(document), metric(document)
    each = milliseconds(document)
    told = ["Each step is one tick of the simulation, counted from the first input."]
    if each is not None:
        told = [
            f"Recordings are replayed in time, {each:.3g} ms a step; after each stands an answer to what came by then."
        ]
    if any(band is not None for band in document["fit_curve"].get(used.interval) or []):
        told.append("The band is the 95 % interval.")
    if len(answers(document)) > 1:
        told.append(f"From the ring on, at {moment(document, answer_step(document))}, the answer stays within it.")
    if any(title in drawn for title in OTHERS):
        figure = "the same figure"
        if used.name == "accuracy":
            pixels = document["task"]["kind"] == "segmentation"
            figure = f"how {'many pixels it sees' if pixels else 'often it answers'} as the original does"
        told.append(
            f"Thin: what else was tried before this one was chosen, by {figure} on calibration images; a dot is a "
            "schedule that answers once."
        )
    if TRIED_CHEAPLY in drawn:
        told.append("Dashed: ranked by a cheap stand-in, without the whole calibration.")
    if document["task"]["assumed"] and document["task"]["kind"] != "classification":
        told.append(f"Judged as {document['task']['kind']}, {document['task']['reason']}.")
    return " ".join(told)


def latency(document: Document) -> Spec | None:
    """The chart; None where there is no answer."""
    drawn = series(document)
    if not answers(document):
        return None
    used, curve = metric(document), document["fit_curve"]
    rows = [row | {"series": title} for title, points in drawn.items() for row in points]
    asked = max(document["latency"].get("asked") or 0, document["latency"]["total"])
    last = max(asked, *(row["t"] for row in rows))
    x = x_axis(document, last)
    y = _value_axis(document, rows)
    first, *thin = drawn
    looks = {first: (BLUE, [1, 0]), **{title: _LOOKS[title] for title in thin}}
    colour = alike("series", alt.Color, list(looks), [ink for ink, _ in looks.values()])
    dash = alike("series", alt.StrokeDash, list(looks), [dashes for _, dashes in looks.values()])
    hint = tips("who:N", "t:Q T", f"value:Q {used.title} | .2f")
    layers = _band(curve, used.interval, x, y)
    main = {row["who"] for row in drawn[first]}
    groups = [[row for row in rows if (row["who"] in main) == solid] for solid in (False, True)]
    for shown, width, size in zip(groups, (1.2, 2.6), (36, 90), strict=True):
        everyone = [row["who"] for row in shown]
        single = [row for row in shown if everyone.count(row["who"]) == 1]  # a line needs two
        lines, dots = alt.Chart(data(shown)), alt.Chart(data(single))
        if len(single) < len(shown):
            drawn_lines = lines.mark_line(strokeWidth=width, clip=True)
            layers.append(drawn_lines.encode(x=x, y=y, color=colour, strokeDash=dash, detail="who:N", tooltip=hint))
        if single:
            layers.append(dots.mark_circle(size=size, opacity=1).encode(x=x, y=y, color=colour, tooltip=hint))
    layers += _original(document, y, last) + _asked(document, x) + _held(document, x, y)
    spec = finish(alt.layer(*layers, _near(document, x)), _HEIGHT)
    spec["usermeta"] = dict(_FITTING)
    return spec


def x_axis(document: Document, last: int) -> alt.X:
    """Steps up to the last one; milliseconds where recordings are replayed in time."""
    if milliseconds(document) is None:
        return alt.X("t:Q").title(TIME).scale(**_time_scale(last)).axis(**time_axis(last))
    return linear_axis(document, last, TIME)


def linear_axis(document: Document, last: int, title: str, ticks: int = 6) -> alt.X:
    """Steps up to the last one, evenly; milliseconds instead where recordings are replayed in time."""
    each = milliseconds(document)
    if each is None:
        return alt.X("t:Q").title(title).scale(nice=False).axis(tickMinStep=1, format="d", tickCount=ticks)
    shown = alt.X("t:Q").title("milliseconds since the first event").scale(nice=False, domain=[0, last])
    wanted = last * each / ticks
    power = 10.0 ** math.floor(math.log10(wanted))
    apart = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= wanted)
    values = [apart * index / each for index in range(int(last * each / apart) + 1)]
    return shown.axis(values=values, labelExpr=f"format(datum.value * {each!r}, '~r')")


def _time_scale(last: int) -> Spec:
    scale: Spec = {"nice": False, "domain": [1, max(last, 2)]}
    return scale | {"type": "log", "base": 2} if last >= _LONG else scale


def time_axis(last: int) -> Spec:
    """Options of an axis of steps: whole numbers, powers of two and the last where it is long."""
    if last < _LONG:
        return {"format": "d", "values": list(range(1, last + 1)) if last <= 8 else [*range(2, last + 1, 2)]}
    powers = [2**k for k in range(last.bit_length()) if 2**k <= last]
    if last > 1.25 * powers[-1]:
        powers.append(last)
    return {"format": "d", "values": powers}


def _value_axis(document: Document, rows: Sequence[Mapping[str, Any]]) -> alt.Y:
    used = metric(document)
    bands = [band for band in document["fit_curve"].get(used.interval) or [] if band]
    values = [row["value"] for row in rows] + [end for band in bands for end in band]
    mixed = used.name == "accuracy" and len({row["series"] for row in rows}) > 1
    counted = "pixels (%)" if document["task"]["kind"] == "segmentation" else spoken(document, "images (%)")
    title = counted if mixed else f"{used.title}{' (%)' if used.unit == '%' else ''}"
    scale: Spec = {"nice": False, "clamp": True}
    if used.better == "lower":
        most = max(1e-9, min(max(values), 200.0) if used.unit == "%" else max(values))
        least = max(min(values), most / 1000)
        # Errors fall by factors: what is worth seeing would lie on the axis.
        scale |= {"type": "log", "domain": [least / 1.3, most * 1.1]} if most > 4 * least else {"domain": [0.0, most]}
    else:
        top = used.target if used.target is not None else 100.0
        room = top / 10
        scale["domain"] = [room * min(9, int(min(values) // room)), top]
    return alt.Y("value:Q").scale(**scale).title(title).axis(format="~r", tickCount=8)


def _band(curve: Mapping[str, Any], key: str, x: alt.X, y: alt.Y) -> list[Any]:
    pairs = zip(curve["timesteps"], curve.get(key) or [], strict=False)
    rows = [{"t": t, "value": band[0], "high": band[1]} for t, band in pairs if band]
    if not rows:
        return []
    chart, high = alt.Chart(data(rows)).encode(x=x, y=y, y2=alt.Y2("high:Q")), len(rows) > 1
    return [
        chart.mark_area(color=BLUE, opacity=0.18) if high else chart.mark_rule(color=BLUE, opacity=0.6, strokeWidth=2)
    ]


def _original(document: Document, y: alt.Y, last: int) -> list[Any]:
    """The line of the original network, where it has a figure of its own."""
    ann = document["ann"]["accuracy"] if metric(document).name == "accuracy" else None
    if ann is None:
        return []
    rule = alt.Chart(data([{"value": ann, "label": f"original {percent(ann)}", "t": last}]))
    words = rule.mark_text(align="right", baseline="bottom", dx=-5, dy=-4, fontWeight=600)
    return [
        rule.mark_rule(color="currentColor", strokeDash=[2, 2], strokeWidth=1.4).encode(y=y),
        words.encode(x="t:Q", y=y, text="label:N"),
    ]


def _asked(document: Document, x: alt.X) -> list[Any]:
    """A line at the steps that were asked for."""
    asked = document["latency"].get("asked")
    if not asked:
        return []
    rule = alt.Chart(data([{"t": asked, "label": f"{at_time(document, asked)} asked for"}]))
    high = metric(document).better == "lower"  # where curves are not, at the end
    words = rule.mark_text(align="right", baseline="top" if high else "bottom", dx=-5, dy=4 if high else -4)
    return [
        rule.mark_rule(color="currentColor", strokeWidth=1, opacity=0.5).encode(x=x),
        words.encode(x=x, y=alt.value(0 if high else "height"), text="label:N"),
    ]


def _held(document: Document, x: alt.X, y: alt.Y) -> list[Any]:
    """A ring at the step from which the answer holds."""
    if len(answers(document)) < 2:
        return []
    step, curve = answer_step(document), document["fit_curve"]
    value = curve[metric(document).name][curve["timesteps"].index(step)]
    rings = alt.Chart(data([{"t": step, "value": value, "goal": f"the answer holds from {moment(document, step)}"}]))
    ring = rings.mark_point(shape="circle", size=130, strokeWidth=2, color="currentColor", opacity=1)
    words = rings.mark_text(align="left", dx=10, dy=12, fontWeight=600)
    return [
        ring.encode(x=x, y=y, tooltip=tips("goal:N")),
        words.encode(x=x, y=y, text=alt.value(f"from {moment(document, step)}")),
    ]


def _near(document: Document, x: alt.X) -> Any:
    """A rule with all figures of the step that is pointed at."""
    curve, used = document["fit_curve"], metric(document)
    columns = {"value": used.name, "against": curve["metric"], "spikes": "spikes_per_image"}
    rows = [
        {"t": t, **{short: curve[key][index] for short, key in columns.items()}}
        for index, t in enumerate(curve["timesteps"])
        if curve[used.name][index] is not None
    ]
    names = {"value": f"{used.title} | .2f"}
    names |= {} if used.name == curve["metric"] else {"against": f"{METRICS[curve['metric']].title} | .2f"}
    names["spikes"] = "spikes per image | ,.0f"
    known = [f"{key}:Q {text}" for key, text in names.items() if any(row[key] is not None for row in rows)]
    near = alt.selection_point(nearest=True, on="pointerover", fields=["t"], empty=False, clear="pointerout")
    rule = alt.Chart(data(rows)).mark_rule(color="currentColor", strokeWidth=1).add_params(near)
    return rule.encode(x=x, opacity=alt.condition(near, alt.value(0.4), alt.value(0)), tooltip=tips("t:Q T", *known))


def spikes(document: Document) -> Spec | None:
    """Spikes per image so far, over time."""
    curve = document["fit_curve"]
    pairs = zip(curve["timesteps"], curve["spikes_per_image"], strict=True)
    rows = [{"t": t, "spikes": spent} for t, spent in pairs if spent is not None]
    if not rows:
        return None
    last = max(row["t"] for row in rows)
    area = alt.Chart(data(rows)).mark_area(
        color=GREY, opacity=0.35, line={"color": GREY}, point={"color": GREY} if len(rows) == 1 else False
    )
    chart = area.encode(
        x=x_axis(document, last),
        y=alt.Y("spikes:Q").title("spikes per image so far").axis(format="~s", tickCount=4),
        tooltip=tips("t:Q T", "spikes:Q spikes per image | ,.0f"),
    )
    return finish(chart, 130)
