"""The Ray engine on a real local cluster of two nodes."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from tiny_zoo import factory, write_folder, write_manifest

from snnconvert.zoo.batch import Settings, run_zoo
from snnconvert.zoo.manifest import load_manifest
from snnconvert.zoo.ray_engine import RayEngine

ray = pytest.importorskip("ray", reason="Ray is not installed (pip install 'snnconvert[ray]')")


def results(out: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in (out / "models").rglob("*.snn")}
    for path in (out / "models").rglob("*.json"):
        if path.name != "row.json":
            found[path.name] = json.dumps({**json.loads(path.read_text()), "timings": None}).encode()
    return found


def test_two_nodes_give_the_local_bytes_and_outlive_crashes(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    write_folder(tmp_path)
    good = factory("good") + factory("other")
    manifest = load_manifest(write_manifest(tmp_path, good + factory("crash") + factory("hang", "limits={seconds=20}")))
    run_zoo(manifest.only(("good", "other")), tmp_path / "local", Settings(jobs=1))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        engine = partial(RayEngine, address=cluster.address)
        outcome = run_zoo(manifest, tmp_path / "ray", Settings(jobs=2, engine=engine))
    finally:
        cluster.shutdown()
    kinds = {result.entry.name: result.row["kind"] for result in outcome.results}
    assert kinds == {"good": "", "other": "", "crash": "crash", "hang": "time"}
    assert outcome.exit_code == 4
    assert results(tmp_path / "ray") == results(tmp_path / "local")
    assert len(results(tmp_path / "ray")) == 4
