"""Runs a loader that was written beside a NIR file, in the environment of its reader; needs nothing of this package.

python nir_harness.py load_m.py inputs.npz outputs.npz
"""

from __future__ import annotations

import importlib.util
import sys

import numpy as np


def main() -> None:
    """Run the loader named first on the images named second and keep what it finds in the file named third."""
    loader, inputs, outputs = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("loader", loader)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with np.load(inputs) as given:
        images = given["images"]
    loaded = module.load()
    scores: list[np.ndarray] = []
    spikes: dict[str, list[np.ndarray]] = {}
    for start in range(0, len(images), 16):
        found, sent = module.simulate(images[start : start + 16], loaded)
        scores.append(found.numpy())
        for name, steps in sent.items():
            spikes.setdefault(name, []).append(steps.numpy().astype(np.int8))
    joined = {f"spikes/{name}": np.concatenate(parts, 1) for name, parts in spikes.items()}
    np.savez(outputs, scores=np.concatenate(scores), **joined)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
