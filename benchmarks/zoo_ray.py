"""Two Ray nodes against one, on equal models: how much sooner a zoo is done, and whether its bytes are the same.

    python benchmarks/zoo_ray.py --models 8

Each node has one CPU. The models are the bundled digits ResNet under as many names, calibrated by `reconstruct`. A
first run of two models per cluster starts the workers and is not timed; Ray is the optional extra `snnconvert[ray]`.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from functools import partial
from pathlib import Path

from snnconvert.zoo.batch import Quiet, Settings, run_zoo
from snnconvert.zoo.manifest import Manifest, load_manifest
from snnconvert.zoo.ray_engine import RayEngine

HEAD = """
[defaults]
timesteps = 32
data = "zoo:digits-resnet"
calibration_data = "zoo:digits-resnet/train"
calibration_samples = 512
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables = (f'[[model]]\nname = "m{index}"\nsource = "zoo:digits-resnet"\n' for index in range(arguments.models))
        (folder / "zoo.toml").write_text(HEAD + "".join(tables), "utf-8")
        manifest = load_manifest(folder / "zoo.toml")
        found = {nodes: timed(manifest, folder, nodes) for nodes in (1, 2, 1, 2)}
        for nodes, seconds in found.items():
            print(f"{nodes} nodes: {seconds:.1f} s for {arguments.models} models (second run of two)")
        same = results(folder / "nodes1") == results(folder / "nodes2")
        print(f"speed-up {found[1] / found[2]:.2f} on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
        print(f"checkpoints and reports (timings aside) {'equal' if same else 'DIFFER'}")


def timed(manifest: Manifest, folder: Path, nodes: int) -> float:
    """Seconds for the whole manifest on a cluster of so many nodes with one CPU each."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=1)
        settings = Settings(jobs=nodes, engine=partial(RayEngine, address=cluster.address))
        ray.init(address=cluster.address, include_dashboard=False, log_to_driver=False, logging_level="error")
        run_zoo(manifest.only(("m0", "m1")), fresh(folder, "warm"), settings, Quiet())
        out = fresh(folder, f"nodes{nodes}")
        begun = time.perf_counter()
        outcome = run_zoo(manifest, out, settings, Quiet())
        seconds = time.perf_counter() - begun
        if outcome.exit_code:
            raise SystemExit(f"exit code {outcome.exit_code}: see {out}")
        return seconds
    finally:
        ray.shutdown()
        cluster.shutdown()


def fresh(folder: Path, name: str) -> Path:
    """An output folder that holds nothing yet."""
    earlier = folder / name
    if earlier.exists():
        earlier.rename(folder / f"{name}.{time.monotonic_ns()}")
    return earlier


def results(out: Path) -> dict[str, bytes]:
    """Checkpoints as they are, reports without their timings."""
    found = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.snn")}
    for path in (out / "models").rglob("*.json"):
        if path.name != "row.json":
            report = {**json.loads(path.read_text("utf-8")), "timings": None}
            found[str(path.relative_to(out))] = json.dumps(report).encode()
    return found


if __name__ == "__main__":
    main()
