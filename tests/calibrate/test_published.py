"""The published methods that results are compared with."""

from __future__ import annotations

import torch
from calibration_networks import images, network, task

from snnconvert.calibrate import METHODS
from snnconvert.calibrate.observe import ranges
from snnconvert.compile.network import compile_network
from snnconvert.simulate.layer_engine import LayerEngine


def test_robust_norm_is_one_percentile_per_layer_with_empty_membranes() -> None:
    one = task(network("residual"), images(30))
    found = METHODS["robust-norm"](one)
    given = METHODS["percentile"](
        task(network("residual"), images(30), options={"granularity": "layer", "initial": 0.0})
    )
    for name, site in found.sites.items():
        assert len(site.threshold.unique()) == 1
        assert not site.initial.any()
        assert torch.equal(site.threshold, given.sites[name].threshold)


def test_balanced_thresholds_rise_towards_the_maximum() -> None:
    ann, given = network("plain"), images(40)
    largest, _ = ranges(ann.graph, task(ann, given).images)
    first = next(iter(largest))
    few, many = (
        METHODS["local-threshold-balancing"](task(ann, given, options={"passes": passes}))
        .sites[first]
        .threshold.flatten()
        for passes in (2, 30)
    )
    assert bool((few <= many + 1e-6).all()) and float(few.sum()) < float(many.sum())
    assert bool((many <= largest[first].largest.float() * 1.05).all())


def test_the_first_balancing_step_is_twice_the_mean_activation() -> None:
    ann, given = network("plain"), images(40)
    one = task(ann, given, options={"passes": 1})
    found = METHODS["local-threshold-balancing"](one).sites
    first = next(iter(found))
    stem = next(node for node in ann.graph.graph.nodes if node.op == "call_module")
    mean = torch.relu(ann.graph.get_submodule(str(stem.target))(one.images)).mean((0, 2, 3))
    assert torch.allclose(found[first].threshold.flatten(), 2 * mean, rtol=1e-4)


def test_light_calibration_changes_biases_only_and_centres_the_rates() -> None:
    ann = network("residual")
    one = task(ann, images(40), timesteps=8)
    found = METHODS["snn-calibration-light"](one)
    before, after = ann.graph.state_dict(), found.network.graph.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.endswith("weight"))
    assert any(not torch.equal(before[name], after[name]) for name in before if name.endswith("bias"))

    def offset(calibration: object) -> float:
        snn = compile_network(calibration)  # type: ignore[arg-type]
        wanted = ann.graph(one.images)[0].double().mean(0)
        got = LayerEngine(snn).run(one.images).outputs[0][-1].mean(0) / one.schedule.frames
        return float((got - wanted).abs().mean())

    assert offset(found) < offset(METHODS["mse"](one))
