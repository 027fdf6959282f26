from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_document import make_document, make_parts
from markupsafe import escape

from snnconvert.cost.energy import energy
from snnconvert.errors import OptionError
from snnconvert.report.charts import charts
from snnconvert.report.compare import HEAD, TEST_HEAD, cells, compare
from snnconvert.report.document import assemble
from snnconvert.report.figures import formats_of, on_paper, write_beside, write_figures
from snnconvert.report.outcomes import of_document, outcomes, pack, unpack
from snnconvert.report.render_comparison import _costs, _curves, headline, render_comparison, render_comparison_html
from snnconvert.report.render_html import render_html
from snnconvert.report.sections import attribution
from snnconvert.report.verdict import answer_step, saving, verdict
from snnconvert.tasks.intervals import mcnemar_exact

SAVES = [{"macs": 1e8, "accumulates": 1e5, "multiplies": 0.0, "neurons": 1e3, "updates": 1e3, "spikes": 10.0}]
BUSY = [{"macs": 1e7, "accumulates": 3e8, "multiplies": 0.0, "neurons": 1e4, "updates": 6e5, "spikes": 3e5}]
BETWEEN = [{"macs": 1e7, "accumulates": 1.3e7, "multiplies": 0.0, "neurons": 4096, "updates": 16384, "spikes": 3000.0}]


def priced(rows: list[dict[str, float]], timesteps: int = 32, **parts: Any) -> dict[str, Any]:
    given = make_parts(timesteps=timesteps)
    found = energy([{**row, "weights": 9216} for row in rows], timesteps=timesteps)
    return assemble({**given, "energy": found, **parts})


def run(seed: int, samples: int = 1000, fingerprint: str = "same") -> dict[str, Any]:
    right = np.random.default_rng(seed).random(samples) < 0.908
    parts = make_parts(samples=samples)
    parts["evaluation"] |= {
        "fingerprint": fingerprint,
        "outcomes": outcomes([bytes([i % 256, i // 256]) for i in range(samples)], snn=right),
    }
    return assemble({**parts, "paired": None})


def test_bits_survive_and_follow_the_images() -> None:
    bits = np.random.default_rng(0).random(37) < 0.5
    assert (unpack(pack(bits), 37) == bits).all()  # type: ignore[union-attr]
    assert unpack(pack(bits), 99) is None
    assert unpack("not base64!", 37) is None
    digests = [bytes([i]) for i in np.random.default_rng(1).permutation(37)]
    held = outcomes(digests, snn=bits, ann=~bits)
    mixed = np.random.default_rng(2).permutation(37)
    again = outcomes([digests[i] for i in mixed], snn=bits[mixed], ann=~bits[mixed])
    assert held == again
    assert held["snn"] != held["ann"]


def test_pairs_are_tested_on_the_same_images_only() -> None:
    first, second, other, old = run(1), run(2), run(3, fingerprint="other"), make_document()
    found = compare([("a", first), ("b", second), ("c", other), ("d", old)])
    tests = {(row["first"], row["second"]): row for row in found["tests"]}
    assert len(tests) == 6
    one, two = of_document(first), of_document(second)
    assert one is not None
    assert two is not None
    row = tests["a", "b"]
    assert row["first_only"] == int((one & ~two).sum()) > 0
    assert row["p_value"] == mcnemar_exact(row["first_only"], row["second_only"])
    assert row["difference"] == pytest.approx(100 * (one.mean() - two.mean()))
    assert row["p_holm"] == row["p_value"]
    assert tests["a", "c"]["reason"] == "not the same images"
    assert tests["a", "d"]["p_value"] is None
    text = render_comparison(found)
    assert "McNemar" in text
    for head, rows in zip((HEAD, TEST_HEAD), cells(found), strict=True):
        assert all(len(row) == len(head) for row in rows)


def test_many_tests_are_adjusted() -> None:
    found = compare([(name, run(seed)) for seed, name in enumerate("abcd")])
    tests = sorted(found["tests"], key=lambda row: row["p_value"])
    assert tests[0]["p_holm"] == pytest.approx(min(1.0, 6 * tests[0]["p_value"]))
    assert all(row["p_holm"] >= row["p_value"] for row in tests)


def test_the_line_says_whether_it_saves() -> None:
    assert re.search(r"; energy: [\d.,]+ to [\d.,]+ times less than an 8-bit ANN$", verdict(priced(SAVES)))
    assert re.search(r"; energy: no saving, [\d.]+ to [\d.]+ times an 8-bit ANN$", verdict(priced(BUSY)))
    unsure = verdict(priced(BETWEEN, 4))
    assert re.search(r"; energy: cannot tell, [\d.]+ to [\d.]+ times an (8-bit|integer) ANN \(.* decides; ", unsure)
    assert "with weights reused, the usual case)" in unsure
    gates = {"status": "failed", "text": "the drop is 3.1 points, allowed are 1."}
    failed = verdict(priced(SAVES, gates=gates))
    assert failed.startswith("Gate failed: the drop is 3.1 points, allowed are 1. 90")
    assert failed.endswith("but it failed its gate")
    assert "energy" not in verdict(make_document())


@pytest.mark.parametrize("rows", [SAVES, BUSY, BETWEEN])
def test_the_energy_of_the_line_is_that_of_the_step_it_names(rows: list[dict[str, Any]]) -> None:
    document = priced(rows, 8)
    step = answer_step(document)
    spent = document["energy"]["over_time"] = {
        "timesteps": list(range(1, 9)),
        "rows": [
            {"baseline": "INT8 ANN", "scope": scope, "ratio": [factor * t for t in range(1, 9)]}
            for scope, factor in (("arithmetic only", 0.01), ("with memory, weights reused", 0.02))
        ],
    }
    found = saving(document)
    assert found is not None
    assert (found.low, found.high) == (spent["rows"][0]["ratio"][step - 1], spent["rows"][1]["ratio"][step - 1])
    assert found.likely == found.high


def test_a_useless_network_saves_nothing() -> None:
    parts = make_parts()
    parts["fit_curve"]["correct"] = [count and count // 2 for count in parts["fit_curve"]["correct"]]
    wrong = parts["ann"]["correct"] - parts["fit_curve"]["correct"][-1]
    section = energy([{**row, "weights": 9216} for row in SAVES], timesteps=32)
    document = assemble({**parts, "energy": section, "paired": (wrong, 0)})
    assert "no longer as accurate" in verdict(document)


def test_a_guessing_network_saves_nothing_where_the_original_is_unknown() -> None:
    parts = make_parts()
    right = parts["evaluation"]["samples"] // 10
    parts["fit_curve"]["correct"] = [count and right for count in parts["fit_curve"]["correct"]]
    section = energy([{**row, "weights": 9216} for row in SAVES], timesteps=32)
    document = assemble({**parts, "energy": section, "ann": {"correct": None}, "paired": None})
    assert "hardly does better than guessing" in verdict(document)


def test_figures_are_files_of_their_own(tmp_path: Path) -> None:
    document = priced(BUSY, timesteps=8)
    for layer in document["layers"]:
        layer["fit"] = []
    paths = write_figures(document, tmp_path / "figures", ["svg", "png"])
    names = {path.name for path in paths}
    assert {"curve.svg", "curve.png", "energy.svg"} <= names
    text = (tmp_path / "figures" / "curve.svg").read_text()
    assert "timesteps" in text
    assert "currentColor" not in text
    assert (tmp_path / "figures" / "curve.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(OptionError, match="jpeg"):
        formats_of("svg,jpeg")
    spec = {"mark": {"color": "currentColor"}, "config": {"background": "transparent"}, "width": "container"}
    assert on_paper(spec)["config"]["background"] == "white"
    assert spec["width"] == "container"
    page = tmp_path / "run.html"
    assert {path.name for path in write_beside(document, page, csv=True, markdown=True)} == {
        "run.csv", "run-layers.csv", "run.md"
    }  # fmt: skip
    assert write_beside(document, page) == []


def test_the_remedy_fits_the_schedule() -> None:
    culprit = {"layer": "a", "origin": "relu", "cause": "unevenness", "size": 0.3, "own": 0.3}
    section = {"layers": [{"error": 0.4}], "culprit": culprit}
    said = {
        kind: attribution.culprit({"attribution": section, "schedule": {"kind": kind}})
        for kind in ("streaming", "wait", "bistable")
    }
    assert all(text is not None and "30.0 %" in text[0] for text in said.values())
    assert len({text[1] for text in said.values() if text}) == 3
    assert "--schedule wait" not in (said["wait"] or ("", "--schedule wait"))[1]
    assert attribution.culprit({}) is None
    for cause, neuron, advised in (
        ("quantisation", "graded", "--neuron graded"),
        ("clipping", "burst", "--neuron burst"),
        ("unevenness", "signed, ternary", "--neuron ternary"),
    ):
        section["culprit"] = {**culprit, "cause": cause}
        used = attribution.culprit({"attribution": section, "neuron": {"model": neuron}})
        other = attribution.culprit({"attribution": section, "neuron": {"model": "if"}})
        assert used is not None and advised not in used[1]
        assert other is not None and advised in other[1]
    section["culprit"] = culprit
    rows = [{"error": 0.4, "causes": {"clipping": 0.5, "quantisation": 0.1, "unevenness": 0.3}}] * 2
    both = attribution.culprit({"attribution": {"layers": rows, "culprit": culprit}, "schedule": {"kind": "streaming"}})
    assert both is not None
    assert "Over all layers it is clipping" in both[0]
    assert "--percentile" in both[1]
    assert "--schedule wait" in both[1]


def test_no_advice_where_nothing_is_lost() -> None:
    culprit = {"layer": "a", "origin": "relu", "cause": "clipping", "size": 0.3, "own": 0.3}
    section = {"layers": [{"name": "a", "error": 0.2}], "culprit": culprit}
    said = {
        drop: attribution.culprit({"attribution": section, "analysis": {"final": {"drop": drop}}})
        for drop in (None, 0.5, 0.0, -0.5)
    }
    assert all(found is not None for found in said.values())
    assert [bool(found and found[1]) for found in said.values()] == [True, True, False, False]
    assert [bool(found and "costs no accuracy" in found[0]) for found in said.values()] == [False, False, True, True]
    assert all(found and "in common" not in found[0] for found in said.values())
    section["layers"] = [{"name": "a", "error": 0.8, "scaled_error": 0.1}]
    common = attribution.culprit({"attribution": section})
    assert common is not None
    assert "off by 80.0 % (by 10.0 % but for a factor that all its rates have in common)" in common[0]
    # a cause larger than the whole error is cancelled in part, and the sentence must say so
    assert all(found and "take back all but 20.0 %" in found[0] for found in said.values())


def test_a_single_answer_does_not_lie_on_the_axis() -> None:
    parts = make_parts(timesteps=8)
    for name in ("correct", "agreement"):  # the others are known from the first step on
        parts["fit_curve"][name] = [None] * 7 + parts["fit_curve"][name][-1:]
    alone = assemble({**parts, "anytime": None, "paired": None})
    found = compare([("alone", alone), ("b", run(1))])
    assert found["notes"] == []
    specs = {"curves": _curves(found, "accuracy"), "costs": _costs(found, "accuracy")}
    for spec in specs.values():
        assert spec is not None
        first = spec.get("layer", [spec])[0]
        assert first["encoding"]["x"]["scale"]["padding"] > 0
    assert specs["curves"] is not None
    marks = [layer["mark"]["type"] for layer in specs["curves"]["layer"]]
    assert "circle" in marks


def test_nothing_settles_in_one_answer() -> None:
    parts = make_parts(timesteps=8)
    assert "fit" in charts(assemble(parts))
    for layer in parts["layers"]:
        layer["fit"] = layer["fit"][-1:]
    document = assemble(parts)
    assert not [name for name in charts(document) if name.startswith("fit")]
    assert "How fast each layer settles" not in render_html(document)


def test_the_page_holds_every_run_and_names_the_best() -> None:
    found = compare([("a </script>", run(1)), ("b", run(2)), ("c", run(3, fingerprint="other"))])
    page = render_comparison_html(found)
    assert len(page.encode()) < 2_000_000
    assert page.count("</script>") == 3
    body = page.split("<main>")[1].split("</main>")[0]
    for table_rows in cells(found):
        for cell in (cell for row in table_rows for cell in row):
            assert str(escape(cell)) in body
    text = headline(found)
    best = max(found["runs"], key=lambda row: row["accuracy"])
    assert text.startswith(f"{best['name']} has the highest accuracy, {best['accuracy']:.2f} %")
    assert "cannot be" in text


def test_the_headline_is_sure_of_a_large_lead_only() -> None:
    good, bad = run(1), run(1)
    bad["evaluation"]["outcomes"]["snn"] = pack(np.zeros(1000, np.bool_))
    bad["analysis"]["final"]["accuracy"] = 0.0
    assert "hardly chance" in headline(compare([("good", good), ("bad", bad)]))
    assert "cannot be told from these images" in headline(compare([("good", good), ("again", run(1))]))
    assert "did not see the same images" in headline(compare([("good", good), ("other", run(2, fingerprint="x"))]))
