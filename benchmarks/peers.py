"""SpikingJelly's own conversion of ResNet-20, on the images of `accuracy.md`'s table of published methods.

    python benchmarks/peers.py --timesteps 8 32 --images 2000

Its converter takes modules traced by torch.fx, knows ReLU and pooling as modules only and has no form for padded
shortcuts, so functional calls are made modules first, and those shortcuts convolutions. Recipes and their settings are
those of its ImageNet example; the read-out starts where it estimates by itself. Needs the data pack, and SpikingJelly
2.0.0, which brings its own version of torch: install it without (`pip install --no-deps spikingjelly loguru tqdm
einops`). Prints a row for each recipe and T: its name, T, the first step that is read, accuracy, and processor
seconds of converting and of measuring.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from typing import Any

import torch
from accuracy import DATA, MODELS, wilson
from torch import Tensor, nn

CALIBRATION, BATCH = 512, 32


def network() -> nn.Module:
    """The trained ResNet-20, traced, each call of a rectifier a module of its own."""
    path = DATA / "models" / "resnet_cifar.py"
    spec = importlib.util.spec_from_file_location("resnet_cifar", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net = module.resnet20()
    stored = torch.load(DATA / "models" / MODELS["resnet20"].file, map_location="cpu", weights_only=True)
    weights = stored.get("state_dict", stored)
    net.load_state_dict({name.removeprefix("module."): value for name, value in weights.items()})
    traced = torch.fx.symbolic_trace(net.eval())
    for node in list(traced.graph.nodes):
        source, made = node, nn.ReLU() if node.target in (nn.functional.relu, torch.relu) else None
        if node.target is nn.functional.pad:
            source, made = node.args[0], padded(2 * node.args[1][-1], 4 * node.args[1][-1])
        elif node.target is nn.functional.avg_pool2d:
            made = nn.AvgPool2d(8)
        if made is not None:
            traced.add_submodule(f"made_{node.name}", made)
            with traced.graph.inserting_after(node):
                node.replace_all_uses_with(traced.graph.call_module(f"made_{node.name}", (source.args[0],)))
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def padded(inputs: int, outputs: int) -> nn.Module:
    """Every second pixel, and channels of zeros around, as a convolution: what its converter has no form for."""
    made = nn.Conv2d(inputs, outputs, 1, 2, bias=False)
    made.weight.data.zero_()
    for channel in range(inputs):
        made.weight.data[(outputs - inputs) // 2 + channel, channel] = 1
    return made


def recipes(loader: list[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Its training-free recipes for such networks."""
    from spikingjelly.activation_based import ann2snn

    rate = ann2snn.RateCodingRecipe(
        dataloader=loader, mode="99.9%", channel_wise=True, pre_spike_maxpool=True, half_threshold=True
    )
    return {
        "99.9 % of each channel, half a threshold to start with": rate,
        "local threshold balancing": ann2snn.LocalThresholdBalancingRecipe(dataloader=loader),
    }


@torch.inference_mode()
def right(snn: nn.Module, images: Tensor, labels: Tensor, timesteps: int, start: int) -> int:
    """Right answers after `timesteps` steps, the outputs of those from `start` on being added up."""
    from spikingjelly.activation_based import functional

    correct = 0
    for some, wanted in zip(images.split(BATCH), labels.split(BATCH), strict=True):
        functional.reset_net(snn)
        outputs = [snn(some) for _ in range(timesteps)][start:]
        correct += int((torch.stack(outputs).sum(0).argmax(1) == wanted).sum())
    return correct


def main() -> None:
    from spikingjelly.activation_based import ann2snn

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--images", type=int, default=2000)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    seen, _ = MODELS["resnet20"].images("train_small")
    images, labels = MODELS["resnet20"].images("test")
    images, wanted = images[: asked.images], torch.from_numpy(labels[: asked.images])
    with torch.inference_mode():
        ann = sum(
            int((network()(some).argmax(1) == y).sum())
            for some, y in zip(images.split(500), wanted.split(500), strict=True)
        )
    print(f"ANN {100 * ann / len(images):.2f} % of {len(images)} images", flush=True)
    loader = [(some, torch.zeros(len(some))) for some in seen[:CALIBRATION].split(BATCH)]
    for timesteps in asked.timesteps:
        for name, recipe in recipes(loader).items():
            begun = time.process_time()
            snn = ann2snn.Converter(recipe=recipe, device="cpu").convert(network()).eval()
            start = ann2snn.estimate_delay_start(snn, loader, torch.device("cpu"), timesteps)
            calibrated = time.process_time() - begun
            correct = right(snn, images, wanted, timesteps, start)
            measured = time.process_time() - begun - calibrated
            low, high = wilson(correct, len(images))
            share = f"{100 * correct / len(images):.2f} ({low:.2f} to {high:.2f})"
            print(f"| {name} | {timesteps} | {start} | {share} | {calibrated:.0f} | {measured:.0f} |", flush=True)


if __name__ == "__main__":
    main()
