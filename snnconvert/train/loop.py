"""The loop: steps of Adam with looks at held-out images, until the time or the steps are used up.

The rate rises at first and falls along half a cosine. Adam moves every number equally far, but folded batch
normalisation leaves channels whose weights are ten times those of others: weights move in proportion to their channel's
own spread.

What chooses the best network is the exact one: whatever is learned is compiled, and run by the engine that will run it.
A run writes down where it is (`kept.py`), and goes on from there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from snnconvert.compile.network import compile_network
from snnconvert.graph.edit import copied
from snnconvert.graph.types import Calibrated, Snn
from snnconvert.progress import Progress, silent
from snnconvert.simulate.chunks import chunk_size
from snnconvert.simulate.layer_engine import LayerEngine
from snnconvert.tasks import TaskChoice
from snnconvert.tasks.scores import answer_of, scores_of
from snnconvert.threads import threads
from snnconvert.train.images import TrainingImages
from snnconvert.train.method import Method
from snnconvert.train.options import MINUTES, FineTuning
from snnconvert.train.student import Student

# how often held-out images are looked at; less often where that would take more than a tenth of the time
LOOKS = 12
LOOKING_SHARE = 0.1
KEPT_EVERY = 60.0
# what a few images tell of the largest values behind a layer
BOUNDING = 256
# share of a run in which the learning rate rises to its full size
WARM = 0.1
# spread of an output channel's weights for which the learning rate is meant; others move in proportion to their own
SPREAD = 0.1

Say = Callable[[str], None]


@dataclass
class State:
    """Where a run is: all that has to be kept for it to go on.

    Attributes:
        step: steps that were taken.
        threads: of torch, that the run began with: among another number of them its sums would round otherwise.
        seconds: time that was used, and `processor`: of it by this process.
        looks: how often held-out images are looked at in the whole run.
        history: one row for every look.
        values: everything that learns.
        best: the same, at the best look.
        score: of that look on held-out images; higher is better.
        adam: the optimiser's own state.
        method: the method's own.
    """

    step: int = 0
    threads: int = field(default_factory=torch.get_num_threads)
    seconds: float = 0.0
    processor: float = 0.0
    looks: int = LOOKS
    history: list[dict[str, float]] = field(default_factory=list)
    values: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    score: float = -math.inf
    adam: dict[str, Any] = field(default_factory=dict)
    method: dict[str, Any] = field(default_factory=dict)


class Judge:
    """Says how good a network is on held-out images: by its agreement with the teacher, or how little it errs."""

    def __init__(self, teacher: fx.GraphModule, task: TaskChoice, images: Tensor) -> None:
        self.task, self.images = task, images
        self.answers: list[Any] = []
        with torch.inference_mode():
            for part in _parts(images, 64):
                self.answers.append(answer_of(task, [one.numpy() for one in teacher(part)]))

    def exact(self, snn: Snn) -> float:
        """Of a compiled network: the headline metric at the last step in per cent; an error counts below zero."""
        engine, scores = LayerEngine(snn), scores_of(self.task)
        size = max(1, min(64, chunk_size(snn)))
        frames = len(snn.schedule.answer_steps)
        for part, known in zip(_parts(self.images, 64), self.answers, strict=True):
            runs = [engine.run(some).outputs for some in _parts(part, size)]
            means = [torch.cat(each, 1)[-1:] / frames for each in zip(*runs, strict=True)]
            scores.add([one.numpy() for one in means], known, None)
        return self._headline(scores)

    def trained(self, student: Student) -> float:
        """The same of a network as it is trained, before it is compiled."""
        scores = scores_of(self.task)
        with torch.inference_mode():
            for part, known in zip(_parts(self.images, 64), self.answers, strict=True):
                scores.add([one.mean(0, keepdim=True).double().cpu().numpy() for one in student(part)], known, None)
        return self._headline(scores)

    def _headline(self, scores: Any) -> float:
        value, metric = scores.curves()[self.task.headline.name].values[-1], self.task.headline
        return -math.inf if value is None else metric.gain(float(value), 0.0)


class Loop:
    """Args:
    student: what learns.
    method: how.
    teacher: the network to learn from.
    images: what to learn from.
    judge: chooses the best.
    asked: the options.
    precision: of the compiled network's weights.
    keep: called with the state now and then, and at every look.
    say: told in words how it goes.
    """

    def __init__(
        self,
        *,
        student: Student,
        method: Method,
        teacher: fx.GraphModule,
        images: TrainingImages,
        judge: Judge,
        asked: FineTuning,
        precision: str = "float32",
        keep: Callable[[State], None] = lambda _: None,
        say: Say = lambda _: None,
    ) -> None:
        self.student, self.method, self.images, self.judge, self.asked = student, method, images, judge, asked
        self.teacher = teacher if student.device.type == "cpu" else copied(teacher).to(student.device)
        self.precision, self.keep, self.say = precision, keep, say
        self.few = images.learned.images(range(min(BOUNDING, len(images))))
        self.total = None if asked.epochs is None else images.steps(asked.epochs, asked.batch_size)
        self.budget = 60.0 * (asked.minutes or MINUTES)
        self.state = State()

    @property
    def learned(self) -> dict[str, Tensor]:
        """Everything that is kept of what learns."""
        return {**self.student.parameters(), **self.method.extra}

    def run(self, state: State | None = None, progress: Progress = silent) -> State:
        """Train from where `state` is, or from the start; the student is then what was best."""
        self.state = state or self.state
        with threads(self.state.threads):
            return self._run(state, progress)

    def _run(self, state: State | None, progress: Progress) -> State:
        groups = [{"params": [one], "lr": self.method.rate_of(name)} for name, one in self.method.learns().items()]
        adam = torch.optim.Adam(groups, foreach=False)
        rates = [float(group["lr"]) for group in adam.param_groups]
        paces = {name: one / SPREAD for name, one in self.student.spreads().items() if name in self.method.learns()}
        if state is not None:
            self._set(state.values)
            adam.load_state_dict(state.adam)
            self.method.load(state.method)
        clock = _Clock(self.state)
        if not self.state.history:
            taken = self._look(adam, clock)
            if self.total is None:
                self.state.looks = max(2, min(LOOKS, int(LOOKING_SHARE * self.budget / max(taken, 1e-3))))
        kept = clock.read()
        while (done := self._share(clock)) < 1:
            rate = 0.5 * self.asked.learning_rate * (1 + math.cos(math.pi * done)) * min(1.0, done / WARM)
            for group, factor in zip(adam.param_groups, rates, strict=True):
                group["lr"] = factor * rate
            self._step(adam, paces)
            self.state.step += 1
            self.method.after_step(min(1.0, self._share(clock)))
            progress("train", *self._done(clock))
            if self._share(clock) * self.state.looks >= len(self.state.history):
                self._look(adam, clock)
                kept = clock.read()
            elif clock.read() - kept > KEPT_EVERY:
                self._keep(adam, clock)
                kept = clock.read()
        self._set(self.state.best)
        return self.state

    def compiled(self) -> Snn:
        """What has been learned so far, as a spiking network."""
        return compile_network(self.calibrated(), precision=self.precision)

    def calibrated(self) -> Calibrated:
        """What has been learned so far, folded."""
        return self.method.folded(self.student.trained(self.few))

    @torch.no_grad()
    def _set(self, values: dict[str, Tensor]) -> None:
        for name, own in self.learned.items():
            own.copy_(values[name])

    def _share(self, clock: _Clock) -> float:
        """How much of the run is done."""
        return self.state.step / self.total if self.total else clock.read() / self.budget

    def _done(self, clock: _Clock) -> tuple[int, int]:
        if self.total:
            return self.state.step, self.total
        return min(int(clock.read()), int(self.budget)), int(self.budget)

    def _step(self, adam: torch.optim.Adam, paces: dict[str, Tensor]) -> None:
        batch = self.images.batch(self.state.step, self.asked.batch_size)
        with torch.inference_mode(), self.student.precision():
            answers = self.teacher(self.student.laid_out(batch.images))
        goal = [one.float().clone() for one in answers]
        adam.zero_grad()
        with torch.enable_grad():
            self.student.counts = bool(self.asked.l1)
            loss = self.method.loss(batch, goal)
            if self.student.counts:
                loss = loss + self.asked.l1 * self.student.sent_units()
            self.student.counts = False
            loss.backward()  # type: ignore[no-untyped-call]
        learned = self.method.learns()
        before = {name: learned[name].detach().clone() for name in paces}
        adam.step()
        with torch.no_grad():
            for name, pace in paces.items():  # what Adam moves has one size; weights do not
                learned[name].copy_(before[name].lerp_(learned[name], pace))

    def _look(self, adam: torch.optim.Adam, clock: _Clock) -> float:
        """Judge what has been learned so far; how long it takes."""
        start = time.perf_counter()
        score = self.judge.exact(self.compiled())
        done = min(1.0, self._share(clock))
        # agreement alone would choose the network from before spikes were saved
        counts = self.method.counts(done) and (not self.asked.l1 or done >= 1)
        if not self.state.best or (score > self.state.score and counts):
            self.state.best = _copied(self.learned)
            self.state.score = score if counts else -math.inf
        clock.store()
        epochs = self.state.step * min(self.asked.batch_size, len(self.images)) / len(self.images)
        row = {"step": self.state.step, "epochs": round(epochs, 4), "score": score}
        self.state.history.append(row | {"seconds": round(self.state.seconds, 1)})
        self.say(self._told(row))
        self._keep(adam, clock)
        return time.perf_counter() - start

    def _told(self, row: dict[str, float]) -> str:
        name = self.judge.task.headline.title
        first = self.state.history[0]["score"]
        minutes, seconds = divmod(int(self.state.seconds), 60)
        said = f"{minutes}:{seconds:02d} min, {row['epochs']:.2f} epochs: held-out {name} {abs(row['score']):.2f}"
        return said + ("" if len(self.state.history) == 1 else f" ({abs(first):.2f} before)")

    def _keep(self, adam: torch.optim.Adam, clock: _Clock) -> None:
        clock.store()
        self.state.values = _copied(self.learned)
        self.state.adam, self.state.method = adam.state_dict(), self.method.state()
        self.keep(self.state)


def _parts(images: Tensor, size: int) -> Iterator[Tensor]:
    return (images[start : start + size] for start in range(0, len(images), size))


def _copied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: one.detach().cpu().clone() for name, one in tensors.items()}


class _Clock:
    """Time that a run has used, those before an interruption included."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.before = state.seconds, state.processor
        self.start = time.perf_counter(), time.process_time()

    def read(self) -> float:
        return self.before[0] + time.perf_counter() - self.start[0]

    def store(self) -> None:
        self.state.seconds = self.read()
        self.state.processor = self.before[1] + time.process_time() - self.start[1]
