"""Energy step by step, and a user's own constants."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import vl_convert

from snnconvert.cost.energy import LayerOperations, energy, layer_rows
from snnconvert.cost.energy_constants import default_constants, load_constants
from snnconvert.cost.energy_over_time import MATCHED, over_time
from snnconvert.errors import OptionError
from snnconvert.report.sections.energy import charts

ROW = LayerOperations(1e6, 3e5, 2e4, 100, 400, 60, 900, weight_reads=2e5, payload_bits=2)
SERIES = {
    "accumulates": [0.0, 1e5, 1e5, 1e5],
    "weight_reads": [0.0, 1e5, 5e4, 5e4],
    "multiplies": [2e4, 0.0, 0.0, 0.0],
    "updates": [100.0] * 4,
    "spikes": [0.0, 20.0, 20.0, 20.0],
}


def test_the_last_step_is_the_whole() -> None:
    spent = over_time([ROW, ROW], [SERIES, SERIES], levels=[1, 2, 3, 4])
    whole = energy([ROW, ROW], timesteps=4, levels=4)
    at_end = {(row["baseline"], row["scope"]): row for row in whole["rows"]}
    for row in spent["rows"]:
        name = "INT3 ANN" if row["baseline"] == MATCHED else row["baseline"]
        for key in ("snn_pj", "ann_pj", "ratio"):
            assert row[key][-1] == pytest.approx(at_end[name, row["scope"]][key])
            assert len(row[key]) == 4
        assert row["snn_pj"] == sorted(row["snn_pj"])
    assert spent["snn_additions"] == [0.0, 2e5, 4e5, 6e5]
    assert spent["spikes"] == [0.0, 40.0, 80.0, 120.0]
    matched = next(row for row in spent["rows"] if row["baseline"] == MATCHED)
    assert matched["ann_pj"][0] < matched["ann_pj"][-1]


def write(path: Path, *rows: str, head: str = 'name = "my chip"\n') -> Path:
    path.write_text(head + "".join(f"[[constant]]\n{row}\n" for row in rows))
    return path


GOOD = 'name = "int32_add"\nvalue = 0.01\nunit = "pJ"\nsource = "data sheet"'


def test_own_constants_decide_beside_the_default_ones(tmp_path: Path) -> None:
    own = load_constants(write(tmp_path / "own.toml", GOOD))
    found = energy([ROW], timesteps=4, own=own)
    assert {row["constants"] for row in found["rows"] if row["decides"]} == {"my chip"}
    assert {row["constants"] for row in found["rows"]} == {"my chip", "45 nm", "22 nm"}
    default = energy([ROW], timesteps=4)["rows"]
    assert [{**row, "decides": None} for row in found["rows"] if row["constants"] == "45 nm"] == [
        {**row, "decides": None} for row in default if row["constants"] == "45 nm"
    ]
    assert found["constants"][0]["source"] == "data sheet"
    assert found["constants"][0]["set"] == "my chip"
    cheap = next(row for row in found["rows"] if row["baseline"] == "INT8 ANN" and row["constants"] == "my chip")
    usual = next(row for row in default if row["baseline"] == "INT8 ANN")
    assert cheap["snn_pj"] < usual["snn_pj"]
    assert layer_rows([ROW], timesteps=4, own=own) != layer_rows([ROW], timesteps=4)
    assert own.values["sram_bit"] == default_constants().values["sram_bit"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (GOOD.replace("int32_add", "add"), "the constant 'add' is not known; allowed: fp32_add, fp32_multiply"),
        (GOOD.replace('"pJ"', '"nJ"'), "int32_add has the unit 'nJ'; allowed: 'pJ'"),
        (GOOD.replace("0.01", "-1"), "int32_add = -1 is not possible"),
        (GOOD.replace("0.01", "nan"), "int32_add = nan is not possible"),
        (GOOD.replace("0.01", '"x"'), "int32_add = 'x' is not possible"),
        (GOOD.replace('source = "data sheet"', ""), "int32_add has no source"),
        (GOOD + "\ncolour = 1", "unknown key 'colour'; allowed: name, value, unit, source, provenance"),
        (GOOD + "\n[[constant]]\n" + GOOD, "int32_add is given twice"),
        ("x =", "cannot be read"),
    ],
)
def test_bad_constants_are_named(tmp_path: Path, row: str, message: str) -> None:
    path = write(tmp_path / "own.toml", row)
    with pytest.raises(OptionError) as caught:
        load_constants(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message


def test_files_without_constants_are_refused(tmp_path: Path) -> None:
    for head, message in (('name = "x"\n', "holds no"), ("factor = 2\n", "unknown key 'factor'")):
        with pytest.raises(OptionError, match=message):
            load_constants(write(tmp_path / "own.toml", head=head))
    with pytest.raises(OptionError, match="cannot be read"):
        load_constants(tmp_path / "missing.toml")


def test_the_chart_explains_its_strokes() -> None:
    """Vega-Lite draws the legend of strokes without a colour (transparent) where points lie on the lines."""
    spent = over_time([ROW, ROW], [SERIES, SERIES], levels=[1, 2, 3, 4])
    spec = charts({"energy": {"rows": [], "over_time": spent}, "latency": {}})["energy_time"]
    legends = vl_convert.vegalite_to_vega(spec)["legends"]
    (strokes,) = [legend for legend in legends if "strokeDash" in legend]
    assert "transparent" not in json.dumps(strokes)
