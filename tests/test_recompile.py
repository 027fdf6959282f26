"""A calibration in another schedule, for another number of steps, in another precision: `snnconvert run`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from random_networks import calibrated as thresholds_of
from random_networks import images, random_ann

from snnconvert.calibrate import METHODS, Task
from snnconvert.cli.main import main
from snnconvert.compile.balance import with_identity_sites
from snnconvert.compile.network import compile_network, difference
from snnconvert.data.bundled import data_path
from snnconvert.errors import OptionError
from snnconvert.graph.checkpoint import graph_tensors, load_snn, save_snn
from snnconvert.graph.schedule import SCHEDULES, Schedule, Streaming, Wait
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import NeuronChoice, Snn
from snnconvert.pipeline import Request, run
from snnconvert.recompile import Change, recompiled
from snnconvert.simulate.layer_engine import LayerEngine

OLD = Path(__file__).parent / "data" / "checkpoints" / "schema1-streaming.snn"
COMMON = {"calibration": "mse", "calibration_samples": 24, "limit": 40}


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """digits-cnn, converted for 8 steps of a streaming network that may leave early."""
    path = tmp_path_factory.mktemp("converted") / "m.snn"
    save_snn(run(Request("zoo:digits-cnn", timesteps=8, schedule="streaming", early_exit=0.9, **COMMON)).snn, path)
    return path


def command(*arguments: object) -> int:
    sys.argv = ["snnconvert", *map(str, arguments)]
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def made_for(kind: str, timesteps: int, depth: int) -> Schedule:
    """The last that its class would try."""
    return [made for _, made in SCHEDULES[kind].within(timesteps, depth) if isinstance(made, Schedule)][-1]


def equal(one: Snn, other: Snn) -> bool:
    first, second = graph_tensors(one.graph), graph_tensors(other.graph)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", [kind for kind, row in SCHEDULES.items() if not row.from_timesteps])
def test_another_number_of_steps_is_what_converting_with_these_thresholds_gives(kind: str) -> None:
    """The graph does not change with T, and the answers are those of the same network run for so long."""
    original = random_ann(3)
    depth = max(site_depths(original.graph).values())
    schedule = made_for(kind, 130, depth)
    snn = compile_network(thresholds_of(with_identity_sites(original, schedule), schedule, 3))
    made, notes = recompiled(snn, Change(timesteps=100))
    shorter = replace(schedule, timesteps=made.schedule.timesteps)
    assert made.schedule.timesteps <= 100 < schedule.timesteps
    assert made.schedule == shorter
    assert equal(made, compile_network(thresholds_of(with_identity_sites(original, shorter), shorter, 3)))
    whole, part = (LayerEngine(one).run(images(1)).outputs[0] for one in (snn, made))
    settled = len(part) - depth * schedule.waited  # whoever waits sends its last spikes when nothing comes in any more
    assert torch.equal(part[:settled], whole[:settled])
    assert notes[0] == f"calibrated for {schedule.describe()}, T = {schedule.timesteps}; run at T = {shorter.timesteps}"
    assert recompiled(made, Change(timesteps=130))[0].schedule == schedule


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_full_frame_is_worth_the_same_in_every_schedule(kind: str, converted: Path) -> None:
    """Else a window of K bits would answer 2^K - 1 times as much as a step."""
    snn = load_snn(converted)
    change = Change(kind, 64)
    made, _ = recompiled(snn, change)
    assert made.schedule.kind == kind
    batch = torch.rand((8, *snn.input_shape), generator=torch.Generator().manual_seed(3)) * 2
    long, _ = recompiled(snn, Change(timesteps=512))
    mean, wanted = (LayerEngine(one).run(batch).outputs[0][-1] / len(one.schedule.answer_steps) for one in (made, long))
    assert float((mean - wanted).norm() / wanted.norm()) < 0.25


def test_early_exit_is_found_again_or_switched_off(converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snn = load_snn(converted)
    assert snn.early_exit is not None
    made, notes = recompiled(snn, Change(timesteps=16))
    assert made.early_exit is not None
    assert made.early_exit.margin != snn.early_exit.margin
    assert "the limit of early exit was found again on 24 calibration images" in notes
    back, notes = recompiled(made, Change(timesteps=8))
    assert (back.early_exit, notes) == (snn.early_exit, ())
    monkeypatch.setattr("snnconvert.data.selection.data_path", lambda name: data_path(name).with_suffix(".gone"))
    gone, notes = recompiled(snn, Change(timesteps=16))
    assert gone.early_exit is None
    assert any(note.startswith("early exit is switched off") for note in notes)


def test_a_late_read_out_starts_again_with_the_first_answer() -> None:
    original = random_ann(3)
    schedule = Streaming(8, max(site_depths(original.graph).values()), read_from=2)
    made, notes = recompiled(compile_network(thresholds_of(original, schedule, 3)), Change(timesteps=16))
    assert made.schedule.read_from == 0
    assert any("read-out starts with the first answer" in note for note in notes)
    assert recompiled(made, Change(timesteps=8))[0].schedule == schedule


def test_a_schedule_that_needs_neurons_without_thresholds_is_refused() -> None:
    """Of the random networks some add a sum that others read too to a longer branch."""
    refused = 0
    for seed in range(12):
        original = random_ann(seed)
        depth = max(site_depths(original.graph).values())
        schedule = Streaming(8, depth)
        snn = compile_network(thresholds_of(original, schedule, seed))
        if with_identity_sites(original, Wait(60, depth)) is original:
            assert recompiled(snn, Change("wait", 60))[0].schedule.kind == "wait"
            continue
        refused += 1
        with pytest.raises(OptionError, match="signed neurons") as caught:
            recompiled(snn, Change("wait", 60))
        assert "snnconvert MODEL -T 60 --schedule wait" in caught.value.hint
    assert 0 < refused < 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (Change(timesteps=0), "--timesteps 0 is below 1"),
        (Change(timesteps=10**6), "--timesteps 1000000 is above"),
        (Change(options={"window": 3}), "--window means nothing to --schedule streaming"),
        (Change("bistable", 4), "bistable does not fit: the first answer takes 10 of 4 steps"),
        (Change("bistable", options={"window": 0}), "--window 0 is outside"),
        (Change("auto"), "'auto' is not known"),
        (Change(precision="int4"), "'int4' is not known"),
    ],
)
def test_what_does_not_fit_is_refused(change: Change, message: str, converted: Path) -> None:
    with pytest.raises(OptionError, match=message):
        recompiled(load_snn(converted), change)


def test_a_file_without_its_calibration_says_how_to_convert_again() -> None:
    with pytest.raises(OptionError, match="does not hold the calibrated network") as caught:
        recompiled(load_snn(OLD), Change(timesteps=4))
    assert "snnconvert zoo:digits-cnn -T 4 --calibration mse" in caught.value.hint
    rounded, _ = recompiled(load_snn(OLD), Change(precision="int8"))
    assert rounded.precision == "int8"


def test_an_old_file_says_which_neuron_it_was_converted_for(tmp_path: Path) -> None:
    path, content = tmp_path / "old.snn", OLD.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + size].replace(rb"\"model\": \"if\"", rb"\"model\": \"ternary\"")
    assert len(header) > size
    header += b" " * (-len(header) % 8)
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
    assert load_snn(OLD).neuron == NeuronChoice()
    assert load_snn(path).neuron == NeuronChoice("ternary")
    with pytest.raises(OptionError) as caught:
        recompiled(load_snn(path), Change(timesteps=4))
    assert "-T 4 --neuron ternary" in caught.value.hint


def test_a_newer_compiler_is_said_and_not_refused(converted: Path) -> None:
    snn = load_snn(converted)
    assert difference(snn) == ""
    assert snn.calibrated is not None
    name = next(iter(snn.calibrated.sites))
    site = snn.calibrated.sites[name]
    moved = {**snn.calibrated.sites, name: replace(site, threshold=site.threshold * 2)}
    assert name in difference(replace(snn, calibrated=replace(snn.calibrated, sites=moved)))


def test_run_says_what_it_ran_and_keeps_it(converted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = converted.with_name("out.snn")
    data = ("--data", "zoo:digits-cnn", "--limit", 40)
    assert command("run", converted, *data, "-T", 4, "--precision", "int8", "-o", out) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "calibrated for streaming, T = 8; run at T = 4" in said
    assert "snnconvert zoo:digits-cnn -T 4 --schedule streaming --precision int8 --calibration mse" in said
    kept = load_snn(out)
    assert (kept.schedule.timesteps, kept.precision) == (4, "int8")
    assert command("run", out, *data, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["fit_curve"]["accuracy"]) == 4
    assert command("info", out) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "calibrated for streaming, T = 8; run at T = 4" in said
    assert "MB: the spiking and the calibrated network, and the original; weights in int8" in said
    assert command("report", out, *data, "--report", out.with_suffix(".html")) == 0
    assert "run at T = 4" in out.with_suffix(".json").read_text()


def test_a_conversion_in_eight_bits_keeps_eight_bits_and_their_own_figures(tmp_path: Path) -> None:
    made = run(Request("zoo:digits-cnn", timesteps=4, schedule="streaming", precision="int8", **COMMON))
    save_snn(made.snn, tmp_path / "m.snn")
    again = load_snn(tmp_path / "m.snn")
    assert again.precision == "int8"
    assert again.evaluation["correct"] == made.studies["precision"].curve.correct
    assert again.calibrated is not None
    whole = run(Request("zoo:digits-cnn", timesteps=4, schedule="streaming", **COMMON)).snn
    assert equal(recompiled(again, Change(precision="float32"))[0], whole)


def test_thresholds_that_a_method_finds_for_another_t_differ(converted: Path) -> None:
    """Otherwise the hint to convert again would be idle."""
    snn = load_snn(converted)
    assert snn.calibrated is not None
    batch = torch.rand((16, *snn.input_shape), generator=torch.Generator().manual_seed(0))
    depth = snn.schedule.depth
    found = [
        METHODS["mse"](Task(snn.calibrated.network, batch, Streaming(steps, depth), NeuronChoice()))
        for steps in (4, 64)
    ]
    assert any(not torch.equal(found[0].sites[name].threshold, site.threshold) for name, site in found[1].sites.items())
