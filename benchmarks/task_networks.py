"""Networks for every task: is the headline what numpy finds, and is auto's choice as good as the best candidate?

    python benchmarks/task_networks.py [NAME ...] [--timesteps 32]

Five networks with random weights and the same five trained here in a minute (scikit-learn's diabetes and digits): a
regression MLP, a U-Net, an autoencoder, a net over one-dimensional signals and one with two outputs. Each is converted
with `--schedule auto`; the headline of its report is computed again with numpy from the outputs of the spiking and the
original network; and every candidate is calibrated fully and measured on the same evaluation inputs. Prints Markdown.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes, load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from snnconvert.calibrate import METHODS, Task
from snnconvert.calibrate.observe import in_canonical_order
from snnconvert.compile.balance import with_identity_sites
from snnconvert.compile.network import compile_network
from snnconvert.data.memory import Memory
from snnconvert.pipeline import Outcome, run
from snnconvert.report.from_run import document_of
from snnconvert.request import Request
from snnconvert.search import candidates
from snnconvert.simulate.layer_engine import LayerEngine

Floats = NDArray[np.float32]
RNG = np.random.default_rng(0)


class UNet(nn.Module):
    """Two levels and a shortcut."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())
        self.deep = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(16, 8, 2, stride=2), nn.ReLU())
        self.head = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, classes, 1))

    def forward(self, x: Tensor) -> Tensor:
        near = self.first(x)
        found: Tensor = self.head(torch.cat([near, self.up(self.deep(near))], 1))
        return found


class TwoOutputs(nn.Module):
    """Ten logits, and a map."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
        self.logits, self.map = nn.Linear(8 * 64, 10), nn.Conv2d(8, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.body(x)
        return self.logits(seen.flatten(1)), self.map(seen)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))


def autoencoder() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()),
        *(nn.ConvTranspose2d(16, 16, 2, stride=2), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1)),
    )


def signal() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv1d(1, 16, 7, padding=3), nn.ReLU(), nn.Conv1d(16, 16, 7, padding=3), nn.ReLU(), nn.Conv1d(16, 1, 1))
    )


def diabetes() -> tuple[Floats, Floats]:
    """Standardised features, and progression standardised likewise."""
    found = load_diabetes()
    x, y = found.data / found.data.std(0), (found.target - found.target.mean()) / found.target.std()
    return x.astype(np.float32), y.astype(np.float32)


def digits() -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Noisy and clean images (n, 1, 8, 8), and classes."""
    found = load_digits()
    clean = (found.images / 16).astype(np.float32)[:, None]
    return clean + 0.3 * RNG.standard_normal(clean.shape).astype(np.float32), clean, found.target


def signals() -> tuple[Floats, Floats]:
    """Noisy and clean random walks (n, 1, 64)."""
    clean = (np.cumsum(RNG.standard_normal((1400, 1, 64)), -1) / 8).astype(np.float32)
    return clean + 0.3 * RNG.standard_normal(clean.shape).astype(np.float32), clean


def trained(module: nn.Module, loss: Callable[[nn.Module, Tensor], Tensor], count: int, steps: int = 800) -> nn.Module:
    """`module` after so many steps of Adam; `loss` takes the indices of a batch."""
    rate = torch.optim.Adam(module.parameters(), 3e-3, weight_decay=1e-4)
    for _ in range(steps):
        rate.zero_grad()
        loss(module, torch.randint(0, count, (64,))).backward()  # type: ignore[no-untyped-call]
        rate.step()
    return module.eval()


def networks() -> dict[str, Callable[[bool], tuple[nn.Module, Floats, NDArray[np.generic] | None]]]:
    """By name what makes a network (trained or not), its inputs, and labels of a trained one."""

    def regression(learn: bool) -> tuple[nn.Module, Floats, NDArray[np.generic] | None]:
        x, y = diabetes()
        a, b = torch.from_numpy(x), torch.from_numpy(y)[:, None]
        return (trained(mlp(), lambda net, i: F.mse_loss(net(a[i]), b[i]), 200), x, y) if learn else (mlp(), x, None)

    def denoising(learn: bool) -> tuple[nn.Module, Floats, NDArray[np.generic] | None]:
        x, y, _ = digits()
        a, b = torch.from_numpy(x), torch.from_numpy(y)
        made = autoencoder()
        return (trained(made, lambda net, i: F.mse_loss(net(a[i]), b[i]), 900), x, y) if learn else (made, x, None)

    def segmentation(learn: bool) -> tuple[nn.Module, Floats, NDArray[np.generic] | None]:
        x, y, _ = digits()
        masks = np.digitize(y[:, 0], [0.25, 0.7]).astype(np.uint8)
        a, b = torch.from_numpy(x), torch.from_numpy(masks).long()
        made = UNet(3)
        return (
            (trained(made, lambda net, i: F.cross_entropy(net(a[i]), b[i]), 900), x, masks)
            if learn
            else (made, x, None)
        )

    def series(learn: bool) -> tuple[nn.Module, Floats, NDArray[np.generic] | None]:
        x, y = signals()
        a, b = torch.from_numpy(x), torch.from_numpy(y)
        made = signal()
        return (trained(made, lambda net, i: F.mse_loss(net(a[i]), b[i]), 700), x, y) if learn else (made, x, None)

    def both(learn: bool) -> tuple[nn.Module, Floats, NDArray[np.generic] | None]:
        x, y, classes = digits()
        a, b, c = torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(classes)

        def loss(net: nn.Module, i: Tensor) -> Tensor:
            logits, drawn = net(a[i])
            return F.cross_entropy(logits, c[i]) + F.mse_loss(drawn, b[i])

        return (trained(TwoOutputs(), loss, 900) if learn else TwoOutputs()), x, None

    return {
        "regression MLP": regression,
        "U-Net": segmentation,
        "autoencoder": denoising,
        "1-D signal net": series,
        "two outputs": both,
    }


def outputs(snn: object, images: Tensor) -> list[NDArray[np.float64]]:
    """Of the spiking network at its end, on the ANN's scale."""
    return [(sums[-1] / len(sums)).numpy() for sums in LayerEngine(snn).run(images).outputs]  # type: ignore[arg-type]


def by_hand(kind: str, snn: list[NDArray[np.float64]], ann: list[NDArray[np.float32]]) -> float:
    """The headline of a report, in numpy."""
    if kind == "segmentation":
        return 100 * float((snn[0].argmax(1) == ann[0].argmax(1)).mean())
    each = [((one - other) ** 2).sum() / (other**2).sum() for one, other in zip(snn, ann, strict=True)]
    return 100 * float(np.sqrt(np.mean(each)))


def every(outcome: Outcome, timesteps: int, ann: list[NDArray[np.float32]]) -> dict[str, float]:
    """The headline of every candidate, fully calibrated."""
    network, images = outcome.ann, in_canonical_order(outcome.inputs.calibration)
    assert outcome.inputs.evaluation is not None
    tested, found = outcome.inputs.evaluation.images(), {}
    for one in candidates(network, timesteps):
        if one.schedule is not None:
            task = Task(with_identity_sites(network, one.schedule), images, one.schedule, one.neuron, {})
            snn = compile_network(METHODS["reconstruct"](task))
            found[one.name] = by_hand(network.task.kind, outputs(snn, tested), ann)
    return found


def main() -> None:
    """Convert, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--timesteps", type=int, default=32)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| network | weights | task | headline | by numpy | chosen | best candidate | ratio of errors |")
    print("|---|---|---|---:|---:|---|---|---:|")
    for name, make in networks().items():
        for learn in (False, True) if not args.names or name in args.names else ():
            torch.manual_seed(1)
            module, x, y = make(learn)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "data.npz"
                np.savez(path, **({"x": x} if y is None else {"x": x, "y": y}))
                request = Request(name, input_shape=x.shape[1:], data=str(path), timesteps=args.timesteps,
                                  limit=300)  # fmt: skip
                outcome = run(request, memory=Memory(module=module.eval()))
                document = document_of(outcome, command_line="")
                assert outcome.inputs.evaluation is not None
                tested = outcome.inputs.evaluation.images()
                with torch.inference_mode():
                    ann = [one.numpy() for one in outcome.ann.graph(tested)]
                metric, kind = document["fit_curve"]["metric"], document["task"]["kind"]
                headline, hand = document["fit_curve"][metric][-1], by_hand(kind, outputs(outcome.snn, tested), ann)
                found = every(outcome, args.timesteps, ann)
            lost = {one: 100 - value if kind == "segmentation" else value for one, value in found.items()}
            best = min(lost, key=lost.__getitem__)
            mine = 100 - headline if kind == "segmentation" else headline
            weights = "trained" if learn else "random"
            chosen = next((row["name"] for row in document["candidates"] if row["chosen"]), "the only one")
            ratio = f"{mine / lost[best]:.2f}" if lost[best] else f"{mine:.2f} against 0"
            print(
                f"| {name} | {weights} | {kind} | {headline:.4f} % | {hand:.4f} % | {chosen} | "
                f"{best} ({found[best]:.3f} %) | {ratio} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
