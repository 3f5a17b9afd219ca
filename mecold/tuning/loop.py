"""The training loop: each step draws one lesson, and now and then held-out items are looked at."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mecold.report import Recorder
from mecold.tuning.checkpoint import Progress, load, optimiser_tensors, put_optimiser, save
from mecold.tuning.config import EncoderTraining
from mecold.tuning.judge import Judge
from mecold.tuning.lessons import Lesson
from mecold.tuning.tower import Tower

WARM_UP = 10
LEAST_TOKENS = 512
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Course:
    """What is learned, by whom, and who judges.

    Args:
        tower: the layers that learn.
        lessons: what is learned, by name.
        rows: of each lesson, the tower's rows of its texts.
        judge: scores vectors; None: all steps are done, and the last weights kept.
    """

    tower: Tower
    lessons: Mapping[str, Lesson]
    rows: Mapping[str, np.ndarray]
    judge: Judge | None

    def score(self) -> float:
        """The judge's, of the tower as it is; 0 without a judge."""
        return 0.0 if self.judge is None else self.judge.score(self.tower.vectors(self.judge.reads))


@dataclass(frozen=True)
class Loop:
    """A training.

    Args:
        course: what is learned.
        config: settings.
        place: folder of the checkpoint.
        seed: of all chance; a step's depends on its number alone, so that a resumed run goes the same way.
        recorder: takes curves and notes.
    """

    course: Course
    config: EncoderTraining
    place: Path
    seed: int
    recorder: Recorder

    def run(self, first: float) -> tuple[Weights, Progress]:
        """Train the tower, going on from a checkpoint if there is one.

        Args:
            first: the judge's score of the base.

        Returns:
            The best weights by the judge, and the progress.
        """
        course, config, recorder = self.course, self.config, self.recorder
        tower, lessons = course.tower, course.lessons
        heads = nn.ModuleList(lesson.head for lesson in lessons.values()).to(tower.device)
        optimiser: torch.optim.Optimizer = torch.optim.AdamW(
            [*tower.top.parameters(), *heads.parameters()], lr=config.learning_rate
        )
        best, progress = tower.weights(), Progress(0, first, tokens=config.batch_tokens)
        if found := load(self.place):
            progress, tensors = found
            best = _put(tensors, tower, heads, optimiser)
            recorder.note(f"Went on from step {progress.step} of an earlier run.")
        recorder.report.events[:] = progress.events
        tower.top.train()
        chances = np.array([lesson.size for lesson in lessons.values()], float) ** config.mixing
        names, chances = list(lessons), chances / chances.sum()
        losses: dict[str, list[float]] = {}
        for step in recorder.epochs("training the encoder", config.steps, progress.step, "step"):
            if course.judge is not None and progress.step - progress.best_step >= config.patience * config.check_every:
                break
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * min(1.0, (step + 1) / WARM_UP) * (1 - step / config.steps)
            rng = np.random.default_rng([self.seed, step])
            name = names[rng.choice(len(names), p=chances)]
            losses.setdefault(name, []).append(self._step(name, optimiser, progress, rng))
            progress.step = step + 1
            if progress.step % config.check_every and progress.step < config.steps:
                continue
            values = {f"loss/{name}": float(np.mean(some)) for name, some in losses.items()}
            losses.clear()
            if course.judge is not None:
                values["held_out"] = course.score()
            if course.judge is None or values["held_out"] > progress.best:
                progress.best, progress.best_step, best = values.get("held_out", 0.0), progress.step, tower.weights()
            recorder.record(progress.step, values, values)
            progress.events = recorder.report.events
            parts = {
                "top": tower.weights(),
                "best": best,
                "head": heads.state_dict(),
                "adam": optimiser_tensors(optimiser),
            }
            flat = {f"{kind}/{key}": one for kind, own in parts.items() for key, one in own.items()}
            save(self.place, progress, flat)
        return best, progress

    def _step(self, name: str, optimiser: torch.optim.Optimizer, progress: Progress, rng: np.random.Generator) -> float:
        """One step; if memory runs out, again with half the texts."""
        tower, lesson, rows = self.course.tower, self.course.lessons[name], self.course.rows[name]
        while True:
            size = int(progress.tokens / tower.lengths[rows].mean())
            try:
                with torch.random.fork_rng(devices=[tower.device] if tower.device.type == "cuda" else []):
                    torch.manual_seed(self.seed * 1_000_003 + progress.step)
                    drawn = lesson.draw(rng, int(np.clip(size, 8, self.config.batch)))
                    loss = lesson.loss(tower(rows[drawn]), drawn)
                    optimiser.zero_grad()
                    torch.autograd.backward(loss)
                break
            except torch.OutOfMemoryError:
                if progress.tokens // 2 < LEAST_TOKENS:
                    raise
                progress.tokens //= 2
                self.recorder.note(
                    f"The device ran out of memory at step {progress.step}: {progress.tokens:,} tokens a step from here on."
                )
        nn.utils.clip_grad_norm_(tower.top.parameters(), 1.0)
        optimiser.step()
        return float(loss.detach())


def _put(tensors: Weights, tower: Tower, heads: nn.Module, optimiser: torch.optim.Optimizer) -> Weights:
    """Give a checkpoint's tensors back to whom they are of; returns the best weights so far."""
    part: dict[str, Weights] = {"top": {}, "best": {}, "head": {}, "adam": {}}
    for key, value in tensors.items():
        kind, _, name = key.partition("/")
        part[kind][name] = value
    tower.put(part["top"])
    heads.load_state_dict(part["head"])
    put_optimiser(optimiser, part["adam"])
    return part["best"]
