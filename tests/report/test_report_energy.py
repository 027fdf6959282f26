from __future__ import annotations

import math

import jsonschema
import pytest

from snnconvert.cost.energy import LayerOperations, energy
from snnconvert.cost.energy_constants import default_constants
from snnconvert.errors import InternalError
from snnconvert.report.document import plain, schema


def layers(rate: float, timesteps: int) -> list[LayerOperations]:
    """A first layer on real input, then two on spikes of the given rate."""
    macs, neurons = 1e7, 16384.0
    first = LayerOperations(macs, 0.0, macs, neurons, neurons * timesteps, rate * neurons * timesteps, 1000)
    spiking = LayerOperations(
        macs, macs * rate * timesteps, 0.0, neurons, neurons * timesteps, rate * neurons * timesteps, 9216
    )
    return [first, spiking, spiking]


def test_the_published_ratio_is_reproduced() -> None:
    found = energy(layers(0.1, 8), timesteps=8)
    (row,) = [row for row in found["rows"] if row["baseline"] == "fp32 ANN"]
    expected = (2 * 1e7 * 0.8 * 0.9 + 1e7 * 4.6) / (3e7 * 4.6)
    assert row["ratio"] == pytest.approx(expected)
    assert not row["decides"]
    assert found["spikes_per_synapse"] == pytest.approx(2 * 0.8 / 3)


def test_integer_arithmetic_by_hand() -> None:
    one = LayerOperations(100.0, 50.0, 0.0, 10.0, 40.0, 5.0, 20.0)
    rows = {(row["baseline"], row["scope"]): row for row in energy([one], timesteps=4)["rows"]}
    plain_row = rows["INT8 ANN", "arithmetic only"]
    assert plain_row["snn_pj"] == pytest.approx(50 * 0.1 + 40 * 0.2 + 5 * 0.1)
    assert plain_row["ann_pj"] == pytest.approx(100 * (0.2 + 0.1))
    bit = 10 / 64
    membrane = 40 * 2 * 16 + 5 * 2 * 4
    no_reuse = rows["INT8 ANN", "with memory, no reuse"]
    assert no_reuse["snn_pj"] == pytest.approx(plain_row["snn_pj"] + bit * (50 * 8 + membrane))
    assert no_reuse["ann_pj"] == pytest.approx(30 + bit * (100 * 8 + 2 * 10 * 8))
    reuse = rows["INT8 ANN", "with memory, weights reused"]
    assert reuse["snn_pj"] == pytest.approx(plain_row["snn_pj"] + bit * (min(50, 20 * 4) * 8 + membrane))
    assert reuse["ann_pj"] == pytest.approx(30 + bit * (20 * 8 + 2 * 10 * 8))
    assert rows["INT3 ANN", "arithmetic only"]["ann_pj"] == pytest.approx(100 * (0.2 * 3 / 8 + 0.1))


@pytest.mark.parametrize(
    ("timesteps", "levels", "bits"), [(1, None, 1), (4, None, 3), (7, None, 3), (32, None, 6), (8, 255, 8), (40, 15, 4)]
)
def test_capacity_matched_width(timesteps: int, levels: int | None, bits: int) -> None:
    found = energy(layers(0.1, timesteps), timesteps=timesteps, levels=levels)
    assert found["activation_bits"] == bits == math.ceil(math.log2((levels or timesteps) + 1))
    names = {row["baseline"] for row in found["rows"]}
    assert names == {"fp32 ANN", "INT8 ANN", f"INT{bits} ANN"}


def test_verdicts() -> None:
    sparse = [LayerOperations(1e8, 1e5, 0.0, 1000, 1000, 10, 1e5)]
    busy = layers(0.5, 64)
    between = [LayerOperations(1e7, 1.3e7, 0.0, 4096, 4096 * 4, 3000, 9216)]
    assert energy(sparse, timesteps=1)["verdict"]["code"] == "saves"
    assert energy(busy, timesteps=64)["verdict"]["code"] == "does_not_save"
    found = energy(between, timesteps=4)
    ratios = [row["ratio"] for row in found["rows"] if row["decides"]]
    assert min(ratios) < 1 < max(ratios)
    assert found["verdict"]["code"] == "cannot_tell"


def test_verdict_never_rests_on_the_flattering_rows() -> None:
    found = energy(layers(0.06, 16), timesteps=16)
    assert found["rows"][0]["ratio"] < 1
    assert found["verdict"]["code"] != "saves"


def test_section_fits_the_schema_and_every_constant_has_a_source() -> None:
    section = plain(energy(layers(0.1, 8), timesteps=8))
    rule = {**schema()["properties"]["energy"], "$defs": schema()["$defs"]}
    jsonschema.validate(section, rule, cls=jsonschema.Draft202012Validator)
    for row in default_constants().rows:
        assert row["value"] > 0
        assert row["source"]
        assert row["provenance"].split(":")[0].split(";")[0] in ("second hand", "assumption", "table")


def test_unusable_counts_are_refused() -> None:
    for rows in ([], [LayerOperations(0, 0, 0, 1, 1, 0, 0)], [LayerOperations(1, -1, 0, 1, 1, 0, 0)]):
        with pytest.raises(InternalError, match="operation counts"):
            energy(rows, timesteps=4)
