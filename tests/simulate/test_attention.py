"""Attention, layer norms and smooth functions as spikes: exact rewrites, an oracle in time, and what is charged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import snnconvert
from snnconvert.convert.attention import with_spiking_operators
from snnconvert.convert.check import check
from snnconvert.convert.doors import import_fitting
from snnconvert.convert.units import analog_nodes
from snnconvert.cost.chip import Target, violations
from snnconvert.errors import OptionError, SnnConvertError, UnsupportedError
from snnconvert.graph.checkpoint import load_snn, save_snn
from snnconvert.graph.dialect import arguments, calls
from snnconvert.graph.kinds import Product
from snnconvert.graph.schedule import SCHEDULES, Serial
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Snn
from snnconvert.neurons.power_of_two import fire_slot, powers_of_two
from snnconvert.options import Usual
from snnconvert.recompile import Change, recompiled
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.study.operations import Counts, OperationCounter
from tests.engines import assert_engines_agree

HEADS, WIDTH, TOKENS = 2, 12, 5


class Block(nn.Module):
    """Attention and two layers of weights, each behind a layer norm and beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
        for norm in (self.first, self.second):
            nn.init.uniform_(norm.weight, 0.5, 2.0)
            nn.init.normal_(norm.bias, std=0.3)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(self.first(x)).reshape(x.shape[0], TOKENS, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(parts[0] * 3, parts[1] * 3, parts[2])
        x = x + self.out(mixed.transpose(1, 2).reshape(x.shape[0], TOKENS, WIDTH))
        found: Tensor = x + self.mlp(self.second(x))
        return found


class TinyViT(nn.Module):
    """A vision transformer of one block, with a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(2, WIDTH, 3, stride=3)
        self.token = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.places = nn.Parameter(torch.randn(1, TOKENS, WIDTH))
        self.block, self.norm, self.head = Block(), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(x.shape[0], -1, -1), patches], 1) + self.places
        found: Tensor = self.head(self.norm(self.block(tokens))[:, 0])
        return found


def vit() -> nn.Module:
    torch.manual_seed(5)
    return TinyViT().eval()


IMAGES = torch.randn(40, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def converted(**options: object) -> snnconvert.Conversion:
    return snnconvert.convert_model(vit(), data=IMAGES, calibration_samples=24, **options)


@pytest.fixture(scope="module")
def strict() -> snnconvert.Conversion:
    return converted(strict_spiking=True)


@pytest.fixture(scope="module")
def network(strict: snnconvert.Conversion) -> Snn:
    return strict.snn


def test_all_of_it_has_a_form_that_is_exact_in_real_numbers() -> None:
    ann = import_fitting(vit(), (tuple(IMAGES.shape[1:]),), {}, name="vit")
    rewritten = with_spiking_operators(ann)
    assert len(analog_nodes(ann.graph)) == 7 and not analog_nodes(rewritten.graph)
    torch.testing.assert_close(rewritten.graph(IMAGES)[0], ann.graph(IMAGES)[0], rtol=1e-4, atol=1e-5)
    assert rewritten.source.notes[-1].startswith("3 layer norm(s), 2 product(s), 1 softmax(es), 1 function(s)")
    loose, strict = check(ann), check(ann, strict=True)
    assert loose.analog == 6 and not loose.refusal
    assert (strict.analog, strict.refusal, strict.operations["current"]) == (0, "", 0)


@pytest.mark.parametrize(("phases", "window"), [("power2", 3), ("power2", 8), ("uniform", 6)])
def test_the_oracle_in_time(network: Snn, phases: str, window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    depth = network.schedule.depth
    other = Change(timesteps=(depth + 1) * window, options={"window": window, "phases": phases})
    snn, _ = recompiled(network, other)
    assert (snn.schedule.timesteps, snn.schedule.frames) == ((depth + 1) * window, 1)
    assert_engines_agree(snn, IMAGES[:6], monkeypatch)


def test_strict_spiking_chooses_the_schedule_and_stays_near(network: Snn) -> None:
    schedule = network.schedule
    assert isinstance(schedule, Serial) and (schedule.window, schedule.depth) == (8, site_depths_of(network))
    ann = vit()(IMAGES).detach()

    def error(snn: Snn) -> float:
        found = LayerEngine(snn).run(IMAGES).outputs[0][-1]
        return float((found - ann).norm() / ann.norm())

    finer, _ = recompiled(network, Change(timesteps=14 * (schedule.depth + 1), options={"window": 14}))
    coarser, _ = recompiled(network, Change(timesteps=4 * (schedule.depth + 1), options={"window": 4}))
    assert error(finer) < error(network) < error(coarser) and error(finer) < 0.04 and error(network) < 0.06


def site_depths_of(snn: Snn) -> int:
    return max(site_depths(snn.graph).values())


def test_it_is_saved_and_loaded(network: Snn, tmp_path: Path) -> None:
    save_snn(network, tmp_path / "vit.snn")
    again = load_snn(tmp_path / "vit.snn")
    mine, theirs = (LayerEngine(one).run(IMAGES[:4]) for one in (network, again))
    assert torch.equal(mine.outputs[0], theirs.outputs[0])
    assert all(torch.equal(mine.spikes[name], counts) for name, counts in theirs.spikes.items())


def test_what_cannot_carry_it_says_so(network: Snn, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError) as refused:
        converted(strict_spiking=True, schedule="streaming", timesteps=8)
    assert "schedule serial sends products, layer norms" in refused.value.hint
    with pytest.raises(SnnConvertError, match="serial"):
        recompiled(network, Change(schedule="streaming", timesteps=8))
    for to in ("onnx", "torch", "integers", "nir"):
        with pytest.raises(OptionError, match="windows of one layer after the other"):
            snnconvert.export(network, tmp_path / "x", to=to)
    found = {row["text"] for row in violations(network, Target(name="adds only", analogue_operators=False))}
    assert found == {
        "products of two streams of spikes",
        "neurons with thresholds that spikes set",
        "neurons with functions of membranes",
    }


def test_thresholds_of_another_method_are_refused_where_spikes_are_multiplied() -> None:
    with pytest.raises(OptionError, match="differ where its spikes are multiplied"):
        converted(schedule="serial", calibration="percentile")


def test_every_addition_is_charged(network: Snn) -> None:
    count, counter = 4, OperationCounter(network, 4)
    seen = LayerEngine(network).run(IMAGES[:count], counter.begin(IMAGES[:count]))
    counter.end(seen)
    rows = {row.name: row for row in counter.layers()}
    sent = {name: int(counts.sum()) / count for name, counts in seen.spikes.items()}
    for name, spikes in sent.items():
        assert rows[name].spikes == pytest.approx(spikes, rel=0.02), name
    # nothing multiplies but what is computed once, of the input: the convolution, and the places' shift
    assert sum(row.multiplies for row in rows.values()) == 4 * WIDTH * 18 + TOKENS * WIDTH
    (scores, mixed) = (node for node, _ in calls(network.graph, Product))
    q, k = (sent[one.name] for one in arguments(scores))
    weights, values = arguments(mixed)
    softmax, divided = rows[weights.name], next(rows[user.name] for user in mixed.users)
    assert softmax.accumulates == pytest.approx((q + k) * (TOKENS + 1))
    # values are counted, weights meet them and are added up
    assert divided.accumulates == pytest.approx(sent[values.name] + sent[weights.name] * (1 + WIDTH // HEADS + 1))
    assert_root_is_charged(rows, sent)


def assert_root_is_charged(rows: dict[str, Counts], sent: dict[str, float]) -> None:
    """The counts of a layer norm, their squares, and a threshold that grows in every neuron of a row."""
    root = next(name for name in sent if name.endswith("root"))
    counts = next(name for name in sent if name.endswith("counts"))
    assert rows[root].accumulates == pytest.approx(2 * sent[counts])
    # C x - sum x of the input's own layer is there once, for both that read it
    assert rows[f"{root}_divided"].accumulates == pytest.approx(WIDTH * rows[root].spikes)
    assert rows[counts].accumulates == pytest.approx(2 * TOKENS * WIDTH)


def test_a_window_sends_the_nearest_powers_of_two() -> None:
    generator = torch.Generator().manual_seed(1)
    r = torch.cat(
        [torch.randn(4000, generator=generator) * 3, torch.linspace(-300, 300, 4801), torch.zeros(1)]
    ).double()
    for slots in (1, 5, 8):
        for spikes in (1, 2, 3, slots):
            units, counts = powers_of_two(r, slots, spikes)
            rest, left, total, fired = r, torch.full_like(r, spikes), torch.zeros_like(r), []
            for power in range(slots - 1, -1, -1):
                sent, rest, left = fire_slot(rest, left, power)
                total = total + sent * 2**power
                fired.append(int(sent.abs().sum()))
            assert torch.equal(units, total) and counts.tolist() == fired
            inside = r.abs() <= 2**slots - 1
            if spikes == slots:
                assert float((units - r)[inside].abs().max()) <= 0.5
    values = torch.rand(20_000, generator=generator).double() * 2**14 + 2**9
    errors = [float(((powers_of_two(values, 16, n)[0] / values) - 1).square().mean().sqrt()) for n in (1, 2, 3)]
    assert errors == pytest.approx([0.19, 0.037, 0.007], rel=0.1)


def test_serial_windows_take_as_long_as_they_need() -> None:
    ((_, made),) = SCHEDULES["serial"].within(Usual(32), 9)
    assert isinstance(made, Serial) and (made.window, made.timesteps, made.levels) == (8, 80, 255)
    ((_, fitted),) = SCHEDULES["serial"].within(100, 9, phases="uniform")
    assert isinstance(fitted, Serial) and (fitted.window, fitted.timesteps, fitted.levels) == (10, 100, 10)
    assert fitted.latency == {"window": 10, "first_output": 100, "total": 100} and fitted.interval == 100
    ((_, refused),) = SCHEDULES["serial"].within(32, 9, window=8)
    assert isinstance(refused, OptionError) and "take 80 of 32 steps" in refused.message
