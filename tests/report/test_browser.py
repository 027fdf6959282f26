"""The page in a real browser: every chart is drawn, every section opens, and the console stays silent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from make_document import make_document, make_parts

from snnconvert.cost.energy import LayerOperations, energy
from snnconvert.cost.energy_over_time import over_time
from snnconvert.report.compare import compare
from snnconvert.report.document import assemble
from snnconvert.report.render_comparison import render_comparison_html
from snnconvert.report.render_html import render_html
from tests.browser import measured, needs_browser, opened

NOT_SHOWN = re.compile(r'data-chart="\w+"[^>]*>chart not shown')
pytestmark = needs_browser


def full_document() -> dict[str, Any]:
    """A report with every section."""
    parts = make_parts(layers=4, timesteps=8)
    causes = {"clipping": 0.1, "quantisation": 0.02, "unevenness": 0.3, "propagation": 0.2}
    names = [layer["name"] for layer in parts["layers"]]
    rows = [
        {
            "macs": 1e7,
            "accumulates": 1e7,
            "multiplies": 0.0,
            "neurons": 1e3,
            "updates": 8e3,
            "spikes": 2e3,
            "weights": 9,
        }
    ]
    layer = {"ann_multiplications": 1e7, "snn_additions": 1e7, "snn_multiplications": 0.0, "neuron_updates": 8e3,
             "spikes": 2e3, "ratio": 1.2, "spikes_per_synapse": 1.0, "break_even": 0.8}  # fmt: skip
    counted = {"images": 4, "layers": [{"name": names[0], "origin": "relu", **layer}], "neurobench": {}}
    split = [{"name": name, "origin": name, "error": 0.4, "causes": causes, "shares": causes} for name in names]
    culprit = {"layer": names[1], "origin": names[1], "cause": "unevenness", "size": 0.3, "own": 0.32}
    neuron = {
        "layer": "relu",
        "neuron": 3,
        "spikes": [0, 1] * 4,
        "membrane": [0.5] * 8,
        "rate": [0.5] * 8,
        "limit": 0.5,
    }
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    classes = [{"name": name, "probabilities": [0.1 * k for k in range(8)]} for name in ("cat", "dog")]
    inside = {
        "neurons": [neuron],
        "raster": [
            {"layer": "silent", "neurons": [], "trains": []},
            {"layer": "relu", "neurons": [1, 2], "trains": [[0, 1] * 4, [1, 0] * 4]},
        ],
        "rates": [{"layer": n, "silent": 5, "counts": [1] * 10, "edges": [k / 10 for k in range(11)]} for n in names],
        "examples": [
            {"kind": "wrong", "image": f"data:image/png;base64,{pixel}", "truth": "cat", "decision": "dog",
             "settled": None, "steps": list(range(1, 9)), "classes": classes}
        ],
    }  # fmt: skip
    runs = [
        {"weight_bits": bits, "state_bits": 16, "timesteps": t, "correct": 10 * t + bits, "samples": 100,
         "spikes_per_image": 5.0, "saturations_per_image": 0.0, "best": bits == 4}
        for bits in (4, 8) for t in (1, 2, 4, 8)
    ]  # fmt: skip
    series = {name: [1e5] * 8 for name in ("accumulates", "weight_reads", "multiplies", "updates", "spikes")}
    spent = over_time([LayerOperations(**rows[0])], [series], levels=list(range(1, 9)))
    broken = {"layer": names[0], "limit": "kernel", "allowed": 3, "found": 5, "text": "a kernel of 5x5"}
    return assemble({
            **parts,
            "energy": {**energy(rows, timesteps=8), **counted, "over_time": spent, "neurobench": {
                "effective_acs": 1.0, "effective_macs": 1.0, "activation_sparsity": 0.5, "connection_sparsity": 0.0,
                "footprint": 9, "membrane_updates": 1.0}},
            "attribution": {"images": 4, "reference": "limit", "layers": split, "culprit": culprit},
            "inside": inside,
            "chip": {"target": {"name": "tiny"}, "violations": [broken], "runs": runs},
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("full", ("--window-size=1200,900",)),
        ("full", ("--window-size=390,844", "--blink-settings=preferredColorScheme=0")),
        ("plain", ("--window-size=1200,900",)),
    ],
)
def test_every_chart_is_drawn_without_a_word_on_the_console(name: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    document = full_document() if name == "full" else make_document(labelled=False, layers=3)
    page = tmp_path / "page.html"
    # Open every fold, so that what is inside it is laid out too.
    page.write_text(render_html(document).replace("<details>", "<details open>"), "utf-8")
    dom, console = opened(page, *flags)
    assert console == ""
    places = re.findall(r'data-chart="(\w+)"', dom)
    assert len(places) == len(set(places))
    if name == "full":
        assert {
            "attribution",
            "raster",
            "membrane_1",
            "approach_1",
            "rate_map",
            "example_1",
            "energy",
            "energy_time",
            "sweep",
        } <= set(places)
    assert not NOT_SHOWN.search(dom)
    drawn = re.findall(r'data-chart="\w+"[^>]*class="[^"]*vega-embed|class="[^"]*vega-embed[^"]*"[^>]*data-chart', dom)
    assert len(drawn) == len(places)
    assert dom.count("<svg") >= len(places)


def test_the_table_of_many_layers_fits_the_page(tmp_path: Path) -> None:
    parts = make_parts(layers=29, timesteps=8)
    for layer in parts["layers"]:
        layer["origin"] = "Sigmoid_10 (Sigmoid unit 5)"
        layer["threshold"] = dict.fromkeys(("min", "median", "max"), 0.0030251)
        layer["neurons"], layer["spikes_per_image"], layer["dead_share"] = 200, 111.0, 0.33
        layer["first_spike"] = {"p10": 11, "p50": 11, "p90": 11, "silent_share": 0.716}
        layer["fit"] = [{"t": 2, "k": 6.29e-6}]
    text = render_html(assemble(parts))
    policy = re.search(r'<meta http-equiv="Content-Security-Policy"[^>]*>', text)
    assert policy is not None
    measure = """<script>addEventListener("load", () => {
        const box = document.querySelector("table.layers").parentElement;
        document.body.dataset.cut = box.scrollWidth - box.clientWidth;
    });</script></body>"""
    page = tmp_path / "page.html"
    page.write_text(text.replace(policy.group(), "").replace("</body>", measure), "utf-8")
    dom, _ = opened(page, "--window-size=1100,900")
    (cut,) = re.findall(r'data-cut="(-?\d+)"', dom)
    assert int(cut) <= 0


def test_the_page_of_a_comparison_is_drawn(tmp_path: Path) -> None:
    runs = [("long", make_document(timesteps=32)), ("short", make_document(timesteps=8))]
    page = tmp_path / "comparison.html"
    page.write_text(render_comparison_html(compare(runs)), "utf-8")
    dom, console = opened(page, "--window-size=390,844")
    assert console == ""
    assert set(re.findall(r'data-chart="(\w+)"', dom)) == {"curves", "costs"}
    assert not NOT_SHOWN.search(dom)
    assert dom.count("<svg") >= 2


def test_a_broken_chart_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    text = render_html(make_document(layers=2))
    page.write_text(text.replace('"mark"', '"mork"').replace('\\"mark\\"', '\\"mork\\"'), "utf-8")
    dom, console = opened(page)
    assert NOT_SHOWN.search(dom) or console


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (1920, 1080), (768, 1024), (390, 844)])
def test_the_curve_is_inside_the_first_screen(width: int, height: int, tmp_path: Path) -> None:
    document = full_document()
    for row in document["candidates"]:
        row["curve"] = {"metric": "agreement", "steps": [2, 4, 8], "values": [50.0, 90.0, 97.0], "images": 64}
        row["curve"]["ranked_by"] = "stand-in" if "wait" in row["name"] else "calibration"
    places = "{line: box('.headline'), tiles: box('.tiles'), curve: box('[data-chart=curve] svg'), "
    places += "wide: document.documentElement.scrollWidth}"
    found = measured(render_html(document), places, tmp_path, width, height)
    assert 0 <= found["line"]["top"] < found["line"]["bottom"] <= found["tiles"]["top"]
    assert found["tiles"]["bottom"] <= found["curve"]["top"] < found["curve"]["bottom"] <= height
    assert found["tiles"]["right"] - 40 <= found["curve"]["right"] <= found["wide"] <= width, "as wide as the page"


def test_a_chart_in_a_fold_is_drawn_when_it_is_opened(tmp_path: Path) -> None:
    text = render_html(full_document())
    count = "document.querySelectorAll('[data-chart=spikes] svg').length"
    assert measured(text, count, tmp_path, 800, 600) == 0
    opener = "<script>document.querySelector('[data-chart=spikes]').closest('details').open = true</script>"
    head, tail = text.rsplit("</body>", 1)
    assert measured(f"{head}{opener}</body>{tail}", count, tmp_path, 800, 600) == 1
