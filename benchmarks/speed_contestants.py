"""What `speed.py` compares: the networks, our engine, the same network's ANN, and SpikingJelly where there is one."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from snnconvert.calibrate import METHODS, Task
from snnconvert.calibrate.observe import in_canonical_order
from snnconvert.compile import PRECISIONS
from snnconvert.compile.network import compile_network
from snnconvert.compile.precision import in_precision
from snnconvert.convert.doors import open_model
from snnconvert.convert.passes import canonicalize
from snnconvert.graph.dialect import arguments, calls, output_nodes
from snnconvert.graph.kinds import Neuron
from snnconvert.graph.schedule import Bistable, Streaming
from snnconvert.graph.schedule.timing import site_depths
from snnconvert.graph.types import Ann, NeuronChoice, Snn
from snnconvert.simulate.chunks import chunk_size
from snnconvert.simulate.kernels import layout
from snnconvert.simulate.layer_engine import LayerEngine

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WINDOW = 4


def cifar_images(data: Path, name: str, count: int) -> Tensor:
    """CIFAR-10 images normalised as the ResNets expect, (count, 3, 32, 32)."""
    with np.load(data / f"{name}.npz") as file:
        images = torch.tensor(file["x"][:count]).permute(0, 3, 1, 2) / 255
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def blurred_noise(shape: tuple[int, ...], count: int) -> Tensor:
    """Stand-in for photographs where the data pack has none of the right preparation."""
    noise = torch.rand((count, *shape), generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.avg_pool2d(noise, 5, 1, 2) * 3


def photographs(data: Path, size: int, count: int, prepared: Callable[[Tensor], Tensor]) -> Tensor:
    """Photographs (count, 3, size, size); `prepared` turns RGB values of 0 to 255 into what the network expects."""
    from PIL import Image

    paths = sorted((data / "imagenet_val1300").glob("*.JPEG"))[:count]
    if not paths:
        return blurred_noise((3, size, size), count)
    pictures = [np.asarray(Image.open(path).convert("RGB").resize((size, size))) for path in paths]
    return prepared(torch.tensor(np.stack(pictures)).permute(0, 3, 1, 2).float()).contiguous()


RESNET, MOBILE, SQUEEZE = "ResNet-20", "MobileNetV1 0.5, 160 px", "SqueezeNet 1.1, 227 px"
MOST_IMAGES = 64


def network(data: Path, name: str) -> tuple[Ann, Tensor]:
    """A network and MOST_IMAGES images for it."""
    models = data / "models"
    if name == RESNET:
        arch = f"{models / 'resnet_cifar.py'}:resnet20"
        ann = open_model(str(models / "resnet20-12fca82f.th"), arch=arch, input_shape=(3, 32, 32))
        return canonicalize(ann), cifar_images(data, "cifar10_test", MOST_IMAGES)
    if name == MOBILE:
        ann = open_model(str(models / "mobilenet_v1_0.5_160_quant.onnx"))
        return canonicalize(ann), photographs(data, 160, MOST_IMAGES, lambda x: x / 127.5 - 1)
    ann = open_model(str(models / "squeezenet_v1.1_ncnn.onnx"))
    mean = torch.tensor((104.0, 117.0, 123.0)).view(3, 1, 1)
    return canonicalize(ann), photographs(data, 227, MOST_IMAGES, lambda x: x.flip(1) - mean)


def converted(ann: Ann, images: Tensor, timesteps: int, *, windows: int | None = None) -> Snn:
    """The spiking network, thresholds by percentile on the first 16 images; streaming, or so many windows."""
    depth = max(site_depths(ann.graph).values())
    if windows is None:
        schedule = Streaming(timesteps, depth)
    else:
        schedule = Bistable((depth + windows) * WINDOW, depth, window=WINDOW)
    task = Task(ann, in_canonical_order(images[:16]), schedule, NeuronChoice())
    return compile_network(METHODS["percentile"](task))


# --- contestants ----------------------------------------------------------------------------------


class PeerNetwork(nn.Module):
    """Our spiking graph with SpikingJelly's neurons, step by step (s) or all steps of a layer at once (m)."""

    def __init__(self, snn: Snn, timesteps: int, mode: str) -> None:
        super().__init__()
        from spikingjelly.activation_based import neuron

        self.nodes, self.timesteps, self.mode = list(snn.graph.graph.nodes), timesteps, mode
        self.output = output_nodes(snn.graph)[0]
        self.ops = dict(calls(snn.graph))
        self.cells = nn.ModuleDict()
        self.scales: dict[Any, Tensor] = {}
        for node, op in self.ops.items():
            if isinstance(op, Neuron):
                self.cells[node.name] = neuron.IFNode(v_threshold=1.0, v_reset=None, step_mode=mode)
                self.scales[node] = (1 / op.threshold).unsqueeze(0)

    def forward(self, x: Tensor) -> Tensor:
        from spikingjelly.activation_based import functional

        functional.reset_net(self)
        if self.mode == "m":
            steps = self._walk(x.repeat(self.timesteps, 1, 1, 1))
            return steps.view(self.timesteps, len(x), *steps.shape[1:]).sum(0)
        total = self._walk(x)
        for _ in range(self.timesteps - 1):
            total = total + self._walk(x)
        return total

    def _walk(self, x: Tensor) -> Tensor:
        values: dict[Any, Tensor] = {}
        for node in self.nodes:
            if node.op == "placeholder":
                values[node] = x
            elif node.op == "call_module":
                inputs = [values[source] for source in arguments(node)]
                values[node] = self._apply(node, inputs)
        return values[self.output]

    def _apply(self, node: Any, inputs: list[Tensor]) -> Tensor:
        op = self.ops[node]
        if not isinstance(op, Neuron):
            own = next(op.buffers(), None)
            return op(*(value if own is None else value.to(own.dtype) for value in inputs)).float()
        cell, current = self.cells[node.name], inputs[0] * self.scales[node]
        if self.mode == "m":
            spikes = cell(current.view(self.timesteps, -1, *current.shape[1:]))
            return spikes.flatten(0, 1)
        return cell(current)


# bytes of the peers' widest tensor over all steps up to which they take part
MOST_PEER_BYTES = 1 << 28


def contestants(snn: Snn, ann: Ann, images: Tensor, timesteps: int) -> dict[str, Callable[[], Any]]:
    """What to time: one call simulates all images (or runs the ANN once on them)."""
    dense = ann.graph.to(memory_format=torch.channels_last)
    batch = images.contiguous(memory_format=torch.channels_last)
    found: dict[str, Callable[[], Any]] = {"ours": simulation(snn, images), "torch ANN": lambda: dense(batch)}
    for precision in PRECISIONS[1:]:
        found[f"ours, {precision}"] = simulation(in_precision(snn, precision), images)
    found["ours, dense float32"] = densely(simulation(snn, images))
    if importlib.util.find_spec("onnxruntime") and importlib.util.find_spec("onnxscript"):
        session = onnxruntime_session(ann, images)
        name = session.get_inputs()[0].name
        found["onnxruntime ANN"] = lambda: session.run(None, {name: images.numpy()})
    widest = max(int(np.prod(node.meta["shape"])) for node in snn.graph.graph.nodes if "shape" in node.meta)
    fits = 4 * widest * timesteps * len(images) <= MOST_PEER_BYTES
    if importlib.util.find_spec("spikingjelly") and fits:
        several, single = PeerNetwork(snn, timesteps, "m").eval(), PeerNetwork(snn, timesteps, "s").eval()
        found["SpikingJelly multi-step"] = lambda: several(images)
        found["SpikingJelly single-step"] = lambda: single(images)
    return found


def simulation(snn: Snn, images: Tensor) -> Callable[[], None]:
    """A run over all images in chunks, as `measure` does it; what came out is not kept."""
    engine, size = LayerEngine(snn), chunk_size(snn)

    def run() -> None:
        for start in range(0, len(images), size):
            engine.run(images[start : start + size])

    return run


def spikes_sent(snn: Snn, images: Tensor) -> int:
    """Spikes of all sites in all steps."""
    engine = LayerEngine(snn)
    seen = (engine.run(image[None]) for image in images)
    return sum(int(counts.sum()) for one in seen for counts in one.spikes.values())


def densely(run: Callable[[], Any]) -> Callable[[], Any]:
    """The same with dense convolutions wherever there is one."""

    def dense() -> Any:
        usual = layout.dense_from, layout.tables_pay
        layout.dense_from, layout.tables_pay = lambda _: 0.0, lambda *_: False
        try:
            return run()
        finally:
            layout.dense_from, layout.tables_pay = usual

    return dense


def onnxruntime_session(ann: Ann, images: Tensor) -> Any:
    """The ANN in onnxruntime with as many threads as torch uses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "ann.onnx")
        torch.onnx.export(ann.graph, (images,), path, dynamo=True, verbose=False, external_data=False)
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
