"""The closed loop: it helps, it is deterministic, it simulates what is deployed, and it copes with every wiring."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from calibration_networks import SHAPE, conv, images, network, task
from torch import Tensor

from snnconvert.calibrate import METHODS
from snnconvert.calibrate.live_values import Chunk, Room
from snnconvert.calibrate.observe import Range, ranges
from snnconvert.calibrate.options import Reconstruct
from snnconvert.calibrate.reconstruct import WORTH, Reconstruction, calibrate_reconstruct
from snnconvert.calibrate.task import Task
from snnconvert.compile.network import compile_network
from snnconvert.errors import DataError
from snnconvert.graph.dialect import Builder, sites
from snnconvert.graph.edit import copied, replace_op
from snnconvert.graph.kinds import Clip, Relu
from snnconvert.graph.types import Ann, Calibrated, Origin, Source
from snnconvert.simulate.kernels import native_available
from snnconvert.simulate.layer_engine import LayerEngine

KINDS = ("plain", "residual", "preactivation", "depthwise", "concat", "units")


def logits(calibration: Calibrated, inputs: Tensor) -> Tensor:
    """Mean logits of the deployed network."""
    snn = compile_network(calibration)
    return LayerEngine(snn).run(inputs).outputs[0][-1] / len(snn.schedule.answer_steps)


def error(one: Task, calibration: Calibrated, inputs: Tensor) -> float:
    wanted = one.ann.graph(inputs)[0].double()
    return float((logits(calibration, inputs) - wanted).square().mean() / wanted.var())


@pytest.mark.parametrize("kind", KINDS)
def test_the_deployed_network_is_closer_to_the_ann(kind: str) -> None:
    ann = network(kind)
    given, fresh = images(60), images(60, seed=2)
    one = task(ann, given)
    before = error(one, METHODS["mse"](one), fresh)
    after = error(one, calibrate_reconstruct(one), fresh)
    assert after < 0.8 * before


@pytest.mark.parametrize("channels", [1, 4])
def test_maps_that_are_read_out_channel_by_channel(channels: int) -> None:
    """Cross-validated where there is one channel, judged by held-out images where several are read alone."""
    draw = torch.Generator().manual_seed(6)
    builder = Builder({"input": torch.rand(2, *SHAPE, generator=draw)})
    x = builder.call(conv(draw, channels, 3), builder.inputs["input"], origin=Origin("first", "test"))
    x = builder.call(Relu(), x, origin=Origin("relu", "test"))
    x = builder.call(conv(draw, channels, channels, groups=channels), x, origin=Origin("last", "test"))
    one = task(Ann(builder.finish([x]), SHAPE, ("maps",), Source("maps", "", "", "test")), images(60), timesteps=12)
    fresh = images(60, seed=2)
    assert error(one, calibrate_reconstruct(one), fresh) < error(one, METHODS["mse"](one), fresh)


@pytest.mark.parametrize(
    ("neuron", "levels", "kind", "timesteps", "plan"),
    [
        ("if", 1, "wait", 10, {"wait": 1}),
        ("ternary", 1, "streaming", 4, {}),
        ("burst", 3, "streaming", 3, {}),
        ("graded", 15, "streaming", 2, {}),
        ("if", 1, "bistable", 24, {"window": 3}),
    ],
)
def test_every_neuron_and_schedule(neuron: str, levels: int, kind: str, timesteps: int, plan: dict[str, int]) -> None:
    ann = network("residual")
    one = task(ann, images(50), timesteps=timesteps, neuron=neuron, levels=levels, kind=kind, **plan)
    fresh = images(50, seed=2)
    assert error(one, calibrate_reconstruct(one), fresh) <= error(one, METHODS["mse"](one), fresh)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_simulated_is_what_is_deployed(kind: str) -> None:
    """The rates that calibration hands from layer to layer are those of the deployed network."""
    one = task(network(kind), images(20), timesteps=5)
    seen: dict[str, Tensor] = {}

    class Watched(Reconstruction):
        def _site(self, node: torch.fx.Node) -> None:
            super()._site(node)
            chunk = self.chunks[0]
            seen[node.name] = self.networks.by_frames(chunk.frames[node].sent().units).float()  # type: ignore[union-attr]

    calibrate = calibrate_reconstruct(one)
    watched = Watched(one, Reconstruct())
    from snnconvert.calibrate.histogram import histograms
    from snnconvert.calibrate.mse import best_bounds
    from snnconvert.calibrate.observe import ranges

    with torch.inference_mode():
        found, _ = ranges(one.ann.graph, one.images)
        counts = histograms(one.ann.graph, one.images, found)
        watched.found = found
        watched.bounds = [
            {name: best_bounds(counts[name], site, one.resolution(name), 0.5) for name, site in found.items()}
        ]
        again = watched.run()
    deployed: dict[str, Tensor] = {}
    batch = watched.chunks[0].images
    LayerEngine(compile_network(again)).run(batch, lambda name, frames: deployed.update({name: frames.float()}))
    for name, spikes in seen.items():
        assert (deployed[name] != spikes).float().mean() < 0.002, name
        assert torch.equal(again.sites[name].threshold, calibrate.sites[name].threshold)


def test_rate_norm_bounds_are_tried_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """They rescue a search whose own start is far too low; and they are named with their objectives."""
    monkeypatch.setattr("snnconvert.calibrate.reconstruct.best_bounds", lambda _, site, *_rest: site.largest / 20)
    one = task(network("plain"), images(40), timesteps=6)
    alone, asked = (
        calibrate_reconstruct(replace(one, options={"rounds": 0, "rate_norm": given})).record for given in (False, True)
    )
    before, after = (
        next(row["error_threshold"] for row in record["layers"] if row["kind"] == "site") for record in (alone, asked)
    )
    assert after < before / 4
    ranked = [row for row in asked["candidates"] if "p" in row]
    assert [row["chosen"] for row in ranked].count(True) == 1
    assert min(ranked, key=lambda row: row["objective"])["chosen"]
    assert not any("p" in row for row in alone["candidates"])


@pytest.mark.parametrize("method", ["mse", "reconstruct"])
@pytest.mark.parametrize(
    ("neuron", "levels", "kind", "timesteps", "plan"),
    [("ternary", 1, "streaming", 8, {}), ("graded", 3, "streaming", 3, {}), ("if", 1, "bistable", 18, {"window": 3})],
)
def test_headroom_keeps_thresholds_up(  # noqa: PLR0917
    method: str, neuron: str, levels: int, kind: str, timesteps: int, plan: dict[str, int]
) -> None:
    """With 1, no activation of the calibration images is above what a neuron can follow; by default some are."""
    ann = network("depthwise")
    one = task(ann, images(60), timesteps=timesteps, neuron=neuron, levels=levels, kind=kind, **plan)
    found, _ = ranges(ann.graph, one.images)

    def least(headroom: float) -> float:
        calibration = METHODS[method](replace(one, options={"headroom": headroom} if headroom else {}))
        return min(
            float((one.levels(name) * site.threshold.flatten() / found[name].largest).min())
            for name, site in calibration.sites.items()
        )

    assert least(0.0) < 0.95
    assert least(1.0) == pytest.approx(1.0, rel=1e-6)
    assert least(1.5) == pytest.approx(1.5, rel=1e-6)


def test_headroom_ends_where_the_activation_itself_saturates() -> None:
    """A neuron that followed further would send what ReLU6 and its relatives cut off."""
    one = Range("one", torch.tensor([0.5, 4.0, 6.0]), 0, 3, 0, ceiling=6.0)
    assert one.followed(2.0).tolist() == [1.0, 6.0, 6.0]
    ann = network("depthwise")
    (site, *_) = [node for node, _ in sites(ann.graph)]
    replace_op(ann.graph, site, Clip(high=0.5))
    found, _ = ranges(ann.graph, images(20))
    assert [one.ceiling for one in found.values()] == [0.5, *[math.inf] * (len(found) - 1)]


def same(first: Calibrated, second: Calibrated) -> bool:
    sites = all(
        torch.equal(one.threshold, second.sites[name].threshold)
        and torch.equal(one.initial, second.sites[name].initial)
        for name, one in first.sites.items()
    )
    states = second.network.graph.state_dict()
    return sites and all(torch.equal(value, states[name]) for name, value in first.network.graph.state_dict().items())


def test_the_order_of_the_images_does_not_matter() -> None:
    ann, given = network("residual"), images(30)
    shuffled = given[torch.randperm(30, generator=torch.Generator().manual_seed(3))]
    assert same(calibrate_reconstruct(task(ann, given)), calibrate_reconstruct(task(ann, shuffled)))


@pytest.mark.skipif(not native_available(), reason="the native kernels were not built")
@pytest.mark.parametrize("kind", ["residual", "depthwise"])
def test_native_kernels_change_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = task(network(kind), images(30), neuron="ternary")
    monkeypatch.setenv("SNNCONVERT_KERNELS", "native")
    first = calibrate_reconstruct(one)
    monkeypatch.setenv("SNNCONVERT_KERNELS", "torch")
    assert same(first, calibrate_reconstruct(one))


@pytest.mark.parametrize("count", [1, 20])
@pytest.mark.parametrize("alike", [0.0, 1.0])
def test_images_that_are_all_alike(alike: float, count: int) -> None:
    """Nothing is left to tell read-outs apart by: their errors round to a little less than nothing."""
    given = torch.full((count, *SHAPE), alike) if count == 1 else (alike * images(1)).repeat(count, 1, 1, 1)
    calibration = calibrate_reconstruct(task(network("plain"), given, timesteps=8))
    assert all(bool(torch.isfinite(site.threshold).all()) for site in calibration.sites.values())


def test_values_that_are_too_large_to_be_squared_are_refused() -> None:
    with pytest.raises(DataError, match="reads on the calibration images is too large"):
        calibrate_reconstruct(task(network("depthwise"), images(20) * 1e25))


def test_the_ann_is_left_alone() -> None:
    ann = network("residual")
    before = {name: value.clone() for name, value in ann.graph.state_dict().items()}
    calibration = calibrate_reconstruct(task(ann, images(20)))
    assert calibration.network.graph is not ann.graph
    assert all(torch.equal(value, before[name]) for name, value in ann.graph.state_dict().items())


def test_no_held_out_error_rises() -> None:
    """Every step has to prove itself on images it was not fitted to."""
    layers = calibrate_reconstruct(task(network("residual"), images(60))).record["layers"]
    assert {layer["kind"] for layer in layers} == {"weights", "site"}
    for layer in layers:
        if layer["kind"] == "weights":
            assert layer["error_after"] <= layer["error_before"]
        else:
            steps = [layer["error_start"], layer["error_threshold"], *(one["error"] for one in layer["rounds"])]
            steps.append(layer["error_after"])
            assert all(later <= earlier for earlier, later in pairwise(steps))


@pytest.mark.parametrize("count", [1, 3, 9])
def test_few_images_are_enough_to_run(count: int) -> None:
    one = task(network("depthwise"), images(count))
    assert torch.isfinite(logits(calibrate_reconstruct(one), images(4, seed=5))).all()


def test_what_memory_does_not_hold_is_kept_in_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """All images are used, and nothing else changes; where there is no disk either, fewer are."""
    monkeypatch.setattr("snnconvert.calibrate.live_values.SMALLEST_FILE", 1)
    written = list[int]()
    taken = Room.taken

    def watched(room: Room, tensor: Tensor) -> object:
        kept = taken(room, tensor)
        written.append(kept is not tensor)
        return kept

    monkeypatch.setattr(Room, "taken", watched)
    for neuron in ("ternary", "graded"):
        one = task(network("concat"), images(40), neuron=neuron, options={"rows": 1024})
        calm = calibrate_reconstruct(one)
        assert not any(written)
        little = {"rows": 1024, "memory": 40 * 8 * 64 * 2 / 2**30}
        small = calibrate_reconstruct(replace(one, options=little))
        assert sum(written) > 5
        assert small.record["images"] == calm.record["images"] == 40
        assert same(calm, small)
        written.clear()
    monkeypatch.setattr("snnconvert.calibrate.reconstruct.disk_space", lambda: 0)
    assert 8 <= calibrate_reconstruct(replace(one, options=little)).record["images"] < 40


@pytest.mark.parametrize("kind", ["preactivation", "units"])
def test_live_edges_are_dropped(kind: str) -> None:
    reconstruction = Reconstruction(task(network(kind), images(10)), Reconstruct())
    reconstruction.found, reconstruction.bounds = found_of(reconstruction)
    networks, seen = reconstruction.networks, set[torch.fx.Node]()
    drop = reconstruction.lives.forget

    def forget(index: int, chunks: list[Chunk]) -> None:
        seen.update(node for node in networks.stored if node in chunks[0].frames)
        drop(index, chunks)

    reconstruction.lives.forget = forget  # type: ignore[method-assign, assignment]
    reconstruction.run()
    assert seen == networks.stored
    for chunk in reconstruction.chunks:
        kept = [node for node in networks.stored if any(node in of for of in (chunk.ann, chunk.mean, chunk.frames))]
        assert not kept


def found_of(reconstruction: Reconstruction) -> tuple[dict[str, Range], list[dict[str, torch.Tensor]]]:
    """The ranges of its sites, and the bounds that thresholds start from."""
    found, _ = ranges(reconstruction.task.ann.graph, reconstruction.images)
    return found, [{name: site.largest for name, site in found.items()}]


def test_what_takes_less_room_to_make_anew_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    one = task(network("units"), images(40), timesteps=4)
    reconstruction = Reconstruction(one, Reconstruct())
    assert len(reconstruction.networks.remade) == 4
    less, thrifty = reconstruction.lives.bytes_at_once(), calibrate_reconstruct(one)
    monkeypatch.setattr("snnconvert.calibrate.reconstruct_networks.made_anew", lambda *_: set())
    for module in ("networks", "lives"):
        monkeypatch.setattr(f"snnconvert.calibrate.reconstruct_{module}.finds_means", lambda *_, **__: False)
    assert Reconstruction(one, Reconstruct()).lives.bytes_at_once() > 1.2 * less
    assert same(thrifty, calibrate_reconstruct(one))


def test_the_read_out_is_chosen_on_held_out_images_and_at_no_other_cost() -> None:
    ann, given = network("residual"), images(120)
    free = calibrate_reconstruct(task(ann, given, timesteps=4))
    errors = {row["name"]: row["error"] for row in free.record["candidates"]}
    (chosen,) = [row for row in free.record["candidates"] if row["chosen"]]
    assert len(errors) == 3
    assert chosen["error"] <= WORTH * min(errors.values())
    assert chosen["name"] == f"read-out leaves out {free.schedule.read_from} steps"
    assert compile_network(free).schedule.read_from == free.schedule.read_from
    first = calibrate_reconstruct(task(ann, given, timesteps=4, options={"read_out": False}))
    assert first.schedule.read_from == 0
    assert first.record["candidates"] == []
    for name, site in first.sites.items():
        assert torch.equal(site.threshold, free.sites[name].threshold)


def test_the_classifier_is_solved_for_the_frames_that_are_read() -> None:
    ann, given, fresh = network("residual"), images(120), images(120, seed=2)
    late = task(ann, given, timesteps=4, read_from=2)
    solved = calibrate_reconstruct(late)
    assert solved.schedule.read_from == 2
    other = calibrate_reconstruct(task(ann, given, timesteps=4, options={"read_out": False}))
    read_late = replace(other, schedule=replace(other.schedule, read_from=2))
    assert error(late, solved, fresh) < error(late, read_late, fresh)


def test_a_network_that_ends_in_spikes_has_its_read_out_chosen_too() -> None:
    ann = without_classifier(network("residual"))
    one = task(ann, images(60), timesteps=8)
    found = calibrate_reconstruct(one)
    errors = [row["error"] for row in found.record["candidates"]]
    assert len(errors) == 5
    (chosen,) = [row["error"] for row in found.record["candidates"] if row["chosen"]]
    assert chosen <= WORTH * min(errors)


def without_classifier(ann: Ann) -> Ann:
    """The network up to its pooling."""
    graph = copied(ann.graph)
    (output,) = [node for node in graph.graph.nodes if node.op == "output"]
    (classifier,) = output.args[0]
    output.args = ((classifier.args[0],),)
    graph.graph.erase_node(classifier)
    graph.recompile()
    return Ann(graph, ann.input_shape, ann.outputs, ann.source)


@pytest.mark.parametrize("kind", ["residual", "concat"])
def test_one_network_can_serve_several_numbers_of_steps(kind: str) -> None:
    """Calibrated for 3 and 10 steps it is better after 3 than if calibrated for 10 alone, and hardly worse after 10."""
    ann, given, fresh = network(kind), images(120), images(120, seed=2)
    wanted = ann.graph(fresh)[0].double()
    errors = []
    for reads in ((), (3,)):
        one = task(ann, given, timesteps=10, options={"read_at": reads, "read_out": False})
        sums = LayerEngine(compile_network(calibrate_reconstruct(one))).run(fresh).outputs[0]
        errors.append([float((sums[t - 1] / t - wanted).square().mean() / wanted.var()) for t in (3, 10)])
    (early, late), (early_too, late_too) = errors
    assert early_too < 0.9 * early
    assert late_too < 3 * late
