"""Export checkpoints to NIR for every reader, run each reader in its own environment, and compare every spike.

    python benchmarks/readers.py --environments .readers digits-cnn.snn:zoo:digits-cnn

`make readers` makes the environments first. A cell is the number of places (image, neuron, step) at which the reader
sends another number of spikes than our engine on the network that was written, its accuracy, and its seconds.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import snnconvert
from snnconvert.errors import UserError
from snnconvert.exporters.nir_file import READERS
from snnconvert.pipeline import Request, run

# the environment of a reader, if it is not one of its own name
HOMES = {"primitive": "norse"}


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", help="CHECKPOINT:DATA; without any, the bundled networks")
    parser.add_argument("--environments", type=Path, default=Path(".readers"))
    parser.add_argument("--limit", type=int, default=64)
    args = parser.parse_args()
    given = [one.split(":", 1) for one in args.checkpoints]
    networks = [(Path(path).stem, path, data) for path, data in given]
    if not networks:
        for name in ("digits-cnn", "digits-resnet"):
            asked = Request(f"zoo:{name}", schedule="streaming", timesteps=16)
            networks.append((name, run(asked).snn, f"zoo:{name}"))
    print(f"| network, {args.limit} images | " + " | ".join(READERS) + " |")
    print("|---" * (len(READERS) + 1) + "|")
    for name, snn, data in networks:
        cells = [cell(snn, data, reader, args) for reader in READERS]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def cell(snn: object, data: str, reader: str, args: argparse.Namespace) -> str:
    """One network in one reader."""
    python = (args.environments / HOMES.get(reader, reader) / "bin" / "python").absolute()
    with tempfile.TemporaryDirectory() as place:
        try:
            made = snnconvert.export(
                snn, f"{place}/m.nir", to="nir", reader=reader, python=str(python), verify=True, data=data,
                limit=args.limit,
            )  # fmt: skip
        except UserError as error:
            return str(error).replace("\n", " ")[:160]
    found = made.verified
    assert found is not None
    right = "" if found.right is None else f", {100 * found.right[1] / found.images:.2f} %"
    return f"{found.total}{right}, {found.seconds[1]:.0f} s"


if __name__ == "__main__":
    main()
