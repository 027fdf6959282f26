"""The Ray engine on real local clusters of several nodes, and what it spreads, without a cluster."""

from __future__ import annotations

import contextlib
import json
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_zoo import factory, write_folder, write_manifest

from snnconvert.data.datasets import Dataset
from snnconvert.data.preprocessing import Preprocessing
from snnconvert.errors import DataError, InternalError, LostError
from snnconvert.graph.checkpoint import load_snn, save_snn
from snnconvert.graph.types import Snn
from snnconvert.pipeline import Request, run
from snnconvert.report.from_run import document_of
from snnconvert.simulate.measure import Tally
from snnconvert.zoo.batch import Settings, run_zoo
from snnconvert.zoo.manifest import load_manifest
from snnconvert.zoo.ray_engine import RayEngine, simulate_in


def results(out: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in (out / "models").rglob("*.snn")}
    for path in (out / "models").rglob("*.json"):
        if path.name != "row.json":
            found[path.name] = json.dumps({**json.loads(path.read_text()), "timings": None}).encode()
    return found


class Here:
    """Simulates the parts in this process, as a Ray worker would."""

    def __init__(self, folder: Path, shards: int) -> None:
        self.folder, self.shards, self.sizes = folder, shards, list[int]()

    def submit(self, snn: Snn, part: Dataset, reference: NDArray[np.int64]) -> Callable[[], Tally]:
        save_snn(snn, self.folder / "part.snn")
        self.sizes.append(len(part))
        given = (part.name, part.preprocessing, part.sample_shape, part.positions, part.labels)
        counted = pickle.dumps(simulate_in(str(self.folder), str(self.folder / "part.snn"), given, reference, None))
        return lambda: pickle.loads(counted)


@pytest.mark.parametrize("shards", [1, 3, 1000])
def test_parts_add_up_to_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shards: int) -> None:
    write_folder(tmp_path, images=401)
    monkeypatch.chdir(tmp_path)
    request = Request(
        model="nets.py:good",
        input_shape=(1, 4, 4),
        timesteps=4,
        data="test.npz",
        calibration_data="train.npz",
        calibration="rnl",
        limit=400,
        label_offset=0,
        preprocessing=Preprocessing(scale=100.0),
    )
    spread = Here(tmp_path, shards)
    found: list[dict[str, Any]] = []
    for name, given in (("whole", None), ("parts", spread)):
        outcome = run(request, spread=given)
        save_snn(outcome.snn, tmp_path / f"{name}.snn")
        found.append({**document_of(outcome, command_line=""), "timings": None})
    assert (tmp_path / "whole.snn").read_bytes() == (tmp_path / "parts.snn").read_bytes()
    assert found[0] == found[1]
    # The first 256 images are watched and stay together.
    assert sum(spread.sizes) == 400 - 256
    assert max(spread.sizes) - min(spread.sizes) <= 1
    assert load_snn(tmp_path / "parts.snn").evaluation["samples"] == 400


def test_errors_cross_processes() -> None:
    for error in (DataError("a", hint="b", causes=("c",)), LostError("a", hint="b"), InternalError("a", causes=("c",))):
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is type(error)
        assert back.render() == error.render()


@contextlib.contextmanager
def cluster_of(nodes: int, head: int = 0) -> Iterator[Any]:
    """A head with `head` CPUs and nodes with one each."""
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'snnconvert[ray]')")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": head})
    try:
        cluster.workers = [cluster.add_node(num_cpus=1) for _ in range(nodes)]
        yield cluster
    finally:
        cluster.shutdown()


def test_two_nodes_give_the_local_bytes_and_outlive_crashes(tmp_path: Path) -> None:
    write_folder(tmp_path, images=700)
    good = factory("good") + factory("other")
    manifest = load_manifest(write_manifest(tmp_path, good + factory("crash") + factory("hang", "limits={seconds=30}")))
    run_zoo(manifest.only(("good", "other")), tmp_path / "local", Settings(jobs=1))
    with cluster_of(2) as cluster:
        engine = partial(RayEngine, address=cluster.address)
        outcome = run_zoo(manifest, tmp_path / "ray", Settings(jobs=2, engine=engine))
        # One model and two hands: its images are spread.
        alone = manifest.only(("good",))
        run_zoo(alone, tmp_path / "spread", Settings(jobs=2, engine=engine))
    kinds = {result.entry.name: result.row["kind"] for result in outcome.results}
    assert kinds == {"good": "", "other": "", "crash": "crash", "hang": "time"}
    assert outcome.exit_code == 4
    wanted = results(tmp_path / "local")
    assert len(wanted) == 4
    assert results(tmp_path / "ray") == wanted
    assert results(tmp_path / "spread") == {name: wanted[name] for name in ("good.snn", "good.json")}
    assert not list((tmp_path / "spread" / "models").rglob(".*"))


def test_a_node_killed_in_flight_costs_nothing(tmp_path: Path) -> None:
    write_folder(tmp_path)
    manifest = load_manifest(write_manifest(tmp_path, factory("lasting")))
    with cluster_of(2) as cluster:

        def kill() -> None:
            patience = time.monotonic() + 100
            while not (started := list(tmp_path.glob("*.started"))) and time.monotonic() < patience:
                time.sleep(0.1)
            (victim,) = [node for node in cluster.workers if node.node_id == started[0].read_text()]
            cluster.remove_node(victim, allow_graceful=False)

        killer = threading.Thread(target=kill)
        killer.start()
        settings = Settings(jobs=1, engine=partial(RayEngine, address=cluster.address))
        outcome = run_zoo(manifest, tmp_path / "out", settings)
        killer.join()
    (result,) = outcome.results
    assert result.converted, result.row
    assert len({path.read_text() for path in tmp_path.glob("*.started")}) == 2
