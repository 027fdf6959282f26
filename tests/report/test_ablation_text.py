"""The ablation in every rendering."""

from __future__ import annotations

from make_document import make_document, make_parts

from snnconvert.report.charts import charts
from snnconvert.report.document import assemble
from snnconvert.report.render_html import render_html
from snnconvert.report.render_markdown import render_markdown
from snnconvert.report.sections.ablation import mean_share
from snnconvert.report.sections.ablation import sentence as ablation_text


def test_the_sentence_has_means_over_all_neurons_and_every_arm() -> None:
    document = make_document()
    section = document["ablation"]
    assert abs((mean_share(section, "before", "neurons") or 0) - (0.1 * 100 + 0.2 * 200) / 300) < 1e-12
    text = ablation_text(document)
    assert text == (
        "Of all neurons 1.67 % fire although the original network's are silent (in streaming integrate-and-fire "
        "16.67 %), 0.00 % although their own input is not above zero (5.00 %), on 20 images at T = 100. Accuracy "
        "there: bistable and synchronous neurons 90.0 %; bistable alone 80.0 %; plain phase coding alone 40.0 %."
    )
    assert "Of all neurons 1.67 % fire" in render_markdown(document)
    unlabelled = ablation_text(assemble(make_parts(labelled=False)))
    assert unlabelled is not None
    assert "Agreement there: bistable and synchronous neurons 95.0 %" in unlabelled


def test_page_shows_table_and_bars() -> None:
    document = make_document()
    bars = charts(document)["inactivated"]
    (values,) = bars["datasets"].values()
    assert [(row["layer"], row["network"], round(row["share"])) for row in values] == [
        ("1. layer1", "streaming integrate-and-fire", 10),
        ("1. layer1", "bistable", 1),
        ("2. layer2", "streaming integrate-and-fire", 20),
        ("2. layer2", "bistable", 2),
    ]
    page = render_html(document)
    assert 'data-chart="inactivated"' in page
    assert "<th>plain phase coding</th><td>no</td><td>40.0 %</td><td>45.0 %</td><td>1,234</td>" in page


def test_reports_without_it_and_with_nothing_in_it() -> None:
    parts = make_parts()
    parts["ablation"] = {
        "images": 0,
        "timesteps": 9,
        "arms": [],
        "layers": [],
        "before": None,
        "left_out": "too large: x",
    }
    text = ablation_text(assemble(parts))
    assert text == "Figures without bistable and synchronous neurons are left out: too large: x."
    assert text in render_html(assemble(parts))
    parts["ablation"] = None
    assert ablation_text(assemble(parts)) is None
    assert "inactivated" not in charts(assemble(parts))


def test_plan_shows_both_states_and_synchronous_neurons() -> None:
    spec = charts(make_document())["plan"]
    (rows,) = spec["datasets"].values()
    states = {row["state"] for row in rows}
    assert states == {"integrates", "emits", "synchronous, integrates", "synchronous, emits"}
    scale = spec["encoding"]["color"]["scale"]
    assert set(scale["domain"]) == states
    assert len(set(scale["range"])) == 4
