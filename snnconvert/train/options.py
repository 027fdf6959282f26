"""What can be asked of fine-tuning, each option stated once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from snnconvert.errors import OptionError
from snnconvert.graph.schedule import MOST_TIMESTEPS
from snnconvert.options import AUTO, check, option
from snnconvert.train import TRAINING_METHODS

AUGMENTATIONS = ("auto", "none", "flip", "shift", "flip,shift", "mix", "flip,shift,mix")
ARITHMETIC = ("float32", "bfloat16")
MINUTES = 15.0
_of = partial(option, commands=("finetune",))
_basic: Any = partial(_of, panel="Training", first=("finetune",))
_more: Any = partial(_of, panel="Training")


@dataclass(frozen=True)
class FineTuning:
    """Of `snnconvert finetune`, and of the table `finetune` in a manifest.

    Attributes are the options; `data` may be None only where the images are in memory.
    """

    data: str | None = _of(
        None,
        "Images to train on, in the forms of convert; no labels needed. Some of them are held out, and those that the "
        "evaluation uses are refused.",
        panel="Data",
        first=("finetune",),
    )
    evaluation_data: str | None = _of(
        None,
        "Images to measure on before and after; they are never trained on.",
        panel="Data",
        first=("finetune",),
        usual="those of the conversion",
    )
    limit: int | None = _of(None, "Measure on a class-balanced sample of N images.", panel="Data", least=1, usual="all")
    held_out: int = _of(
        1000, "Images of --data that choose the best network; at most a fifth of them.", panel="Data", least=1
    )
    method: str = _basic("distill", "How to train.", choices=lambda: TRAINING_METHODS)
    timesteps: int | None = _basic(
        None, "Train for another number of steps.", short="-T", least=1, most=MOST_TIMESTEPS, usual="as converted"
    )
    minutes: float | None = _basic(None, "Train for so long.", above=0, usual=f"{MINUTES:g}")
    epochs: float | None = _basic(
        None, "Train for so many passes over the images instead; the result does not depend on the clock then.", above=0
    )
    from_scratch: bool = _more(
        False, "Draw the weights anew instead of starting from those of the conversion; give it more time then."
    )
    teacher: str | None = _more(
        None, "A network to learn from (.onnx, .pt2, zoo:NAME).", usual="the original network in the checkpoint"
    )
    label_weight: float = _more(
        0.0,
        "Share of the loss that is the cross entropy with labels; 0: the teacher alone.",
        least=0,
        most=1,
    )
    temperature: float | None = _more(
        None,
        "Of the softened answers that are compared.",
        above=0,
        usual="0.3 of the median distance between the teacher's two best answers, at most 3",
    )
    learning_rate: float = _more(5e-4, "Of Adam; it falls to 0 along half a cosine.", above=0)
    batch_size: int = _more(32, "Images in one step.", least=1)
    augment: str = _more(
        AUTO,
        "Vary the images of every step: mirrored, moved by up to an eighth, and each with a share of another one mixed "
        "in (labels, where they count, are those of the larger share); auto: the first two for colour images.",
        choices=AUGMENTATIONS,
    )
    arithmetic: str = _more(
        "float32",
        "Of convolutions and matrix products while training. bfloat16 takes half the time where the processor has it, "
        "and in one comparison learned less from an image. What is measured and written is exact.",
        choices=ARITHMETIC,
    )
    surrogate_width: float = _more(
        0.5, "How far from its threshold a membrane may be for gradients to flow, in thresholds.", above=0, most=2
    )
    backward: str = _more(
        "dense",
        "sparse: gradients are computed where that is so, and nowhere else, for linear layers (distill).",
        choices=("dense", "sparse"),
    )
    rnl_stage: str = _more("2", "1: weights under clipped activations; 2: p alone (rnl).", choices=("1", "2"))
    omega: float | None = _more(None, "Weight of the rate inference loss (rnl).", least=0, usual="1 / (3 T)")
    l1: float = _more(
        0.0,
        "Weight of the mean number of units that a neuron sends a step, for sparser spikes; of first spikes in "
        "continuous time, of its value over its window, whose zeros never spike. The last network is kept then.",
        least=0,
    )
    connectivity: float = _more(0.1, "Share of the synapses that is left (rewire).", above=0, most=1)
    seed: int = _more(0, "Order of the images, and which are held out.", least=0, most=2**32 - 1)
    device: str = _more("cpu", "cpu, or cuda where there is one.")


def check_asked(asked: FineTuning) -> None:
    """Refuse options that do not fit each other.

    Raises:
        OptionError: naming both.
    """
    check(asked)
    if asked.minutes is not None and asked.epochs is not None:
        raise OptionError(
            f"--minutes {asked.minutes:g} and --epochs {asked.epochs:g} both say when to stop",
            hint="give one of the two",
            options=("minutes", "epochs"),
        )
    if asked.l1 and asked.backward == "sparse":
        raise OptionError(
            f"--l1 {asked.l1:g} does not fit --backward sparse, which knows no gradient of what is sent",
            hint="leave one of the two out",
            options=("l1", "backward"),
        )
    own = {name: method for method, row in TRAINING_METHODS.items() for name in row.options}
    for name in own:
        if name not in TRAINING_METHODS[asked.method].options and getattr(asked, name) != getattr(FineTuning, name):
            owners = [method for method, row in TRAINING_METHODS.items() if name in row.options]
            raise OptionError(
                f"--{name.replace('_', '-')} means nothing to --method {asked.method}",
                hint=f"leave it out, or choose --method {' or '.join(owners)}",
                options=(name, "method"),
            )
