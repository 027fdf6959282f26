from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from make_document import make_document, make_parts
from pages import HOSTILE, Page, executed, hostile_document
from rich.console import Console

from snnconvert.cost.energy import energy
from snnconvert.report import wording
from snnconvert.report.characters import plot
from snnconvert.report.charts import charts
from snnconvert.report.document import assemble
from snnconvert.report.render_csv import curve_csv, layers_csv
from snnconvert.report.render_html import render_html
from snnconvert.report.render_markdown import render_markdown
from snnconvert.report.render_terminal import print_next, print_summary
from snnconvert.report.sections.settling import MOST_SMALL_CHARTS, small_layers
from snnconvert.report.verdict import answer_step, difference, verdict
from snnconvert.tasks import inputs_called

OPERATIONS = {"macs": 1e6, "multiplies": 0.0, "neurons": 1000, "weights": 9216}


@pytest.fixture(scope="module")
def hostile_page() -> str:
    return render_html(hostile_document())


def test_page_loads_nothing_from_elsewhere(hostile_page: str) -> None:
    page = Page(hostile_page)
    loading = {"src", "href", "srcset", "data", "poster", "action", "background", "xlink:href"}
    assert [(tag, attributes) for tag, attributes in page.tags if loading & set(attributes)] == []
    assert not {"link", "iframe", "object", "embed", "base", "img", "form"} & {tag for tag, _ in page.tags}
    policy = next(attributes["content"] for tag, attributes in page.tags if attributes.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "http" not in policy
    style = hostile_page[hostile_page.index("<style>") : hostile_page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_policy_pins_exactly_the_scripts_of_the_page(hostile_page: str) -> None:
    page = Page(hostile_page)
    scripts = executed(page)
    assert len(scripts) == 2
    wanted = {f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts}
    policy = next(attributes["content"] for tag, attributes in page.tags if attributes.get("http-equiv"))
    assert policy is not None
    assert set(re.findall(r"'sha256-[^']+'", policy)) == wanted
    assert "'unsafe-inline'" not in policy[policy.index("script-src") :]
    assert "\r" not in hostile_page


def test_hostile_strings_are_shown_and_not_obeyed(hostile_page: str) -> None:
    page = Page(hostile_page)
    assert not [attributes for _, attributes in page.tags if any(name.startswith("on") for name in attributes)]
    assert wording.clean(HOSTILE) in " ".join(page.words)
    assert "\x1b" not in hostile_page
    (specs,) = [text for attributes, text in page.scripts if attributes.get("type") == "application/json"]
    assert "<" not in specs
    assert wording.clean(HOSTILE) in json.dumps(json.loads(specs)["fit"], ensure_ascii=False).replace('\\"', '"')


def test_every_chart_has_its_place_and_the_page_stays_small() -> None:
    parts = make_parts(timesteps=512, layers=150)
    rows = [{**OPERATIONS, "accumulates": 1e5, "updates": 1e4, "spikes": 100.0}] * 3
    document = assemble({**parts, "energy": energy(rows, timesteps=512)})
    text = render_html(document)
    assert len(text.encode()) < 2_000_000
    page = Page(text)
    places = [attributes["data-chart"] for _, attributes in page.tags if "data-chart" in attributes]
    assert sorted(map(str, places)) == sorted(charts(document))
    assert len(small_layers(document)) == MOST_SMALL_CHARTS
    assert text.count("vegaEmbed=") == 1


@pytest.mark.parametrize(
    "options",
    [{"labelled": False}, {"timesteps": 1}, {"layers": 0}, {"samples": 1, "labelled": False}, {"first_output": 20}],
)
def test_documents_with_gaps_render_everywhere(options: dict[str, Any]) -> None:
    parts = make_parts(**options)
    for layer in parts["layers"]:
        for key in ("firing_rate", "spikes_per_image", "dead_share", "saturated_share", "sin_share", "omega"):
            layer[key] = None
        layer["fit"] = []
    parts |= {"comparison": None, "candidates": [], "next_commands": [], "timings": {}}
    document = assemble(parts)
    assert verdict(document) in " ".join(Page(render_html(document)).words)
    console = Console(file=io.StringIO(), width=70)
    print_summary(document, console)
    assert render_markdown(document).startswith("### ")
    assert len(curve_csv(document).splitlines()) == 1 + len(document["fit_curve"]["timesteps"])


def test_document_without_any_answer_renders() -> None:
    parts = make_parts(timesteps=4, labelled=False)
    parts["fit_curve"] = {"timesteps": [1, 2, 3, 4]}
    document = assemble(parts)
    assert "No answer that could be measured within 4 steps" in render_html(document)
    assert "No answer that could be measured within 4 steps" in render_markdown(document)
    assert plot(document) == []
    print_summary(document, Console(file=io.StringIO()))


def test_the_line_names_accuracy_step_and_spikes() -> None:
    document = make_document()
    final, step = document["analysis"]["final"], answer_step(document)
    assert 1 < step < 32
    spikes = document["fit_curve"]["spikes_per_image"][step - 1]
    assert verdict(document) == (
        f"{final['accuracy']:.1f} %, {final['drop']:.1f} points below the original (91.2 %, within chance), "
        f"from step {step} of 32; {spikes:,.0f} spikes an image"
    )
    unlabelled = verdict(make_document(labelled=False))
    assert unlabelled.startswith("96.9 % of the answers are the original's, from step ")
    assert "below the original" not in unlabelled


def test_the_answer_holds_from_where_it_stays_within_its_interval() -> None:
    document = make_document()
    step, curve = answer_step(document), document["fit_curve"]
    least = curve["accuracy_interval"][-1][0]
    assert all(value >= least for value in curve["accuracy"][step - 1 :])
    assert curve["accuracy"][step - 2] < least


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"timesteps": 8, "asked": 32}, " of the 32 asked for; "),
        ({"timesteps": 8, "asked": 8}, " of 8; "),
        ({"timesteps": 8, "first_output": 8, "asked": 32}, ", at step 8 of the 32 asked for; "),
        ({"timesteps": 8, "first_output": 8, "asked": 8}, ", after 8 steps; "),
    ],
)
def test_the_line_says_what_was_asked_for(changes: dict[str, Any], text: str) -> None:
    asked = changes.pop("asked")
    parts = make_parts(**changes)
    parts["latency"]["asked"] = asked
    assert text in verdict(assemble(parts))


@pytest.mark.parametrize(
    ("drop", "text"), [(0.5, "0.5 points below"), (-1.25, "1.2 points above"), (0.04, "like"), (0.0, "like")]
)
def test_difference(drop: float, text: str) -> None:
    assert difference(drop) == text


@pytest.mark.parametrize(
    ("shape", "images"),
    [((3, 32, 32), True), ((28, 28), True), ((96, 96, 3), True), ((1, 8, 8), True), ((784,), False),
     ((1, 16000), False), ((49, 10, 1), False), ((3, 16, 112, 112), False)],
)  # fmt: skip
def test_words_follow_the_data(shape: tuple[int, ...], images: bool) -> None:
    parts = make_parts(layers=3)
    parts["model"]["input_shape"] = list(shape)
    parts["task"] = {"kind": "classification", "assumed": False, "reason": "", "input": inputs_called(shape)}
    parts["layers"][0]["origin"] = "image.relu (Relu)"
    document = assemble(parts)
    console = Console(file=io.StringIO(), width=100)
    print_summary(document, console)
    page = Page(render_html(document))
    words = " ".join(page.words)
    shown = [words, json.dumps(charts(document)), console.file.getvalue(), render_markdown(document)]  # type: ignore[attr-defined]
    for text in shown:
        prose = text.replace("image.relu", "").replace("--images photos/", "")
        assert bool(re.search(r"\b[Ii]mages?\b", prose)) == images, re.findall(r".{40}\b[Ii]mages?\b.{9}", prose)
    assert "image.relu" in words


def test_numbers() -> None:
    assert wording.fixed(-0.001, 2) == "0.00"
    assert wording.fixed(1234567.0, 0) == "1,234,567"
    assert wording.percent(None) == wording.DASH
    assert wording.count(3.5) == "3.5"
    assert wording.count(30.5) == "30"
    assert wording.clean("a\nb\x1b[0m\u202e") == "a b\ufffd[0m\ufffd"


def summary(document: dict[str, Any], **options: Any) -> str:
    console = Console(file=io.StringIO(), **{"width": 90, **options})
    print_summary(document, console)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_terminal_summary_on_a_pipe_has_no_colour() -> None:
    text = summary(make_document())
    assert "\x1b" not in text
    assert f"resnet20: {verdict(make_document())}"[:60] in text
    assert "warning: " in text
    assert max(len(line) for line in text.splitlines()) <= 90


def test_terminal_summary_respects_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    document = make_document()
    assert "\x1b[33m" in summary(document, force_terminal=True, color_system="standard", _environ={"TERM": "xterm"})
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[33m" not in summary(document, force_terminal=True, color_system="standard")


def test_terminal_shows_hostile_names_as_text() -> None:
    text = summary(hostile_document(), width=300)
    assert "\x1b" not in text
    assert "[red]x[/red]" in text


def test_endless_names_do_not_push_the_report_away() -> None:
    """Names keep their ends; commands, which are copied, stay whole."""
    parts, path = make_parts(), "p/" * 400 + "x.snn"
    parts["model"] = {**parts["model"], "name": "first" + "n" * 10_000 + "last"}
    parts["layers"][0]["origin"] = "L" * 10_000 + " (Relu)"
    parts["next_commands"] = [f"snnconvert run {path}"]
    document = assemble(parts)
    console = Console(file=io.StringIO(), width=100)
    print_summary(document, console)
    print_next(document, console)
    for text in (render_html(document), render_markdown(document), console.file.getvalue()):  # type: ignore[attr-defined]
        shown = text.split("<script")[0]
        assert "n" * 1_000 not in shown
        assert "last" in shown
        assert "L" * 1_000 not in shown
    assert path in console.file.getvalue()  # type: ignore[attr-defined]
    assert path in render_html(document)


def test_one_next_command_which_is_never_broken() -> None:
    parts = make_parts()
    parts["next_commands"] = ["snnconvert run " + "very/long/path/" * 12 + "x.snn", "snnconvert info x.snn"]
    console = Console(file=io.StringIO(), width=60)
    print_next(assemble(parts), console)
    assert console.file.getvalue() == f"next:\n  {parts['next_commands'][0]}\n"  # type: ignore[attr-defined]


def test_terminal_on_ascii_consoles() -> None:
    class Ascii(io.StringIO):
        encoding = "ascii"  # type: ignore[assignment]

    console = Console(file=Ascii(), width=80)
    document = make_document(layers=3)
    document["model"]["notes"] = ["2 node(s) stay analog: gâte (Mul)"]
    print_summary(document, console)
    assert isinstance(console.file, Ascii)
    assert console.file.getvalue().isascii()
    assert "note: 2 node(s) stay analog: g?te (Mul)" in console.file.getvalue()


@pytest.mark.parametrize("timesteps", [1, 5, 32, 64, 200])
def test_plot_puts_values_at_their_place(timesteps: int) -> None:
    document = make_document(timesteps=timesteps)
    lines = plot(document, width=50, ascii_only=True)
    body = [line for line in lines if "|" in line]
    rows = {int(line[:5]): line[7:] for line in body if line[:5].strip()}
    accuracy = document["fit_curve"]["accuracy"]
    assert max(len(line) for line in lines) <= 7 + 50
    assert f"T={timesteps}" in lines[-1]
    top, bottom = max(rows), min(rows)
    assert bottom <= min(accuracy) <= max(accuracy) <= top
    # The last point stands in the row nearest to its value.
    filled = [number for number, line in enumerate(body) if line.rstrip()[-1] in "*"]
    step = (top - bottom) / (len(body) - 1)
    assert any(abs(top - number * step - accuracy[-1]) <= step / 2 + 1e-9 for number in filled)


def test_markdown_escapes_names_and_keeps_its_tables() -> None:
    text = render_markdown(hostile_document())
    # The command line stands in a code fence, where nothing is interpreted and which it cannot close.
    prose, command, rest = text.split("```")
    assert wording.clean(HOSTILE) == command.strip()
    assert rest == "\n"
    assert "<script" not in prose
    assert "<img" not in prose
    assert "@me" not in prose
    for line in text.splitlines():
        if line.startswith("| ") and "layer" not in line and "alert" in line:
            assert len(re.findall(r"(?<!\\)\|", line)) == 7


def test_csv_holds_every_step() -> None:
    document = make_document(first_output=5)
    rows = list(csv.DictReader(io.StringIO(curve_csv(document))))
    assert [int(row["timestep"]) for row in rows] == document["fit_curve"]["timesteps"]
    assert rows[0]["accuracy"] == ""
    assert float(rows[-1]["accuracy"]) == pytest.approx(document["fit_curve"]["accuracy"][-1], rel=1e-5)
    assert float(rows[-1]["accuracy_low"]) < float(rows[-1]["accuracy"]) < float(rows[-1]["accuracy_high"])


def test_the_kept_bundle_is_used_only_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from snnconvert.report import render_html as module

    monkeypatch.setenv("SNNCONVERT_CACHE", str(tmp_path))
    made = module.chart_library.__wrapped__()
    (kept,) = tmp_path.iterdir()
    assert module.chart_library.__wrapped__() == made
    kept.write_text(kept.read_text("utf-8").replace("vegaEmbed", "evilEmbed"), "utf-8")
    assert module.chart_library.__wrapped__() == made
    assert "evilEmbed" not in kept.read_text("utf-8")


def test_csv_holds_every_layer_and_what_was_spent() -> None:
    document = make_document(layers=3, timesteps=4)
    document["energy"] = {
        "layers": [{"name": document["layers"][1]["name"], "snn_additions": 12.0}],
        "over_time": {
            "timesteps": [1, 2, 3, 4],
            "spikes": [1.0] * 4, "snn_additions": [1.0, 2.0, 3.0, 4.0], "snn_multiplications": [0.0] * 4,
            "neuron_updates": [1.0] * 4,
            "rows": [{"baseline": "INT8 ANN", "scope": "arithmetic only", "snn_pj": [5.0] * 4, "ann_pj": [1.0] * 4,
                      "ratio": [5.0] * 4}],
        },
    }  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(layers_csv(document))))
    assert [row["name"] for row in rows] == [layer["name"] for layer in document["layers"]]
    assert [row["snn_additions"] for row in rows] == ["", "12", ""]
    assert [row["first_spike_p50"] for row in rows] == ["3"] * 3
    steps = list(csv.DictReader(io.StringIO(curve_csv(document))))
    assert [row["counted_snn_additions"] for row in steps] == ["1", "2", "3", "4"]
    assert steps[-1]["ratio_int8_ann_arithmetic_only"] == "5"


def test_without_the_ann_no_goal_is_called_missed() -> None:
    parts = make_parts(timesteps=8, layers=2)
    parts["ann"] = {"correct": None}
    parts["fit_curve"]["agreement"] = [None] * 8
    document = assemble({**parts, "paired": None, "anytime": None, "candidates": []})
    assert document["analysis"]["final"]["accuracy"] is not None
    assert document["milestones"]["basis"] == "accuracy"
    text = render_markdown(document)
    page = render_html(document)
    assert "not reached" not in text
    assert "not reached" not in page
    assert "not known" in page
    console = Console(file=io.StringIO(), width=100)
    print_summary(document, console)
    assert "not reached" not in console.file.getvalue()  # type: ignore[attr-defined]
    (line,) = [layer for layer in charts(document)["curve"]["layer"] if "strokeDash" in layer["encoding"]]
    assert line["encoding"]["strokeDash"]["scale"]["range"] == [[1, 0]]
    assert not any("original" in json.dumps(layer) for layer in charts(document)["curve"]["layer"])
