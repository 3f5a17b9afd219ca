"""What happened in a fit: curves and notes, as values, as JSON lines, and through one-method trackers."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from tqdm import tqdm


@runtime_checkable
class Tracker(Protocol):
    """Anything that wants to hear of training as it goes."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Called once per epoch with the numbers of the epoch."""
        ...


@dataclass
class FitReport:
    """The record of one `fit_meta`.

    Args:
        events: one mapping per epoch or stage, in order; each has `step` and `seconds` since the start.
        notes: warnings and decisions in words.
        best_step: epoch whose parameters were kept.
        seconds: duration of the fit.
    """

    events: list[dict[str, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    best_step: int = 0
    seconds: float = 0.0

    def curve(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of one number over the fit, such as `"loss"` or `"held_out/ndcg@10"`."""
        return [(int(event["step"]), event[name]) for event in self.events if name in event]

    def to_jsonl(self) -> str:
        """One JSON object a line: the events, then one with the notes."""
        last = {"best_step": self.best_step, "seconds": round(self.seconds, 3), "notes": self.notes}
        return "".join(json.dumps(line) + "\n" for line in [*self.events, last])


@dataclass
class Recorder:
    """Whom a fit tells what happens: a report that keeps it, trackers that hear it, a bar that shows it.

    Args:
        report: keeps curves and notes.
        trackers: hear of every epoch.
        progress: show progress bars.
    """

    report: FitReport = field(default_factory=FitReport)
    trackers: Sequence[Tracker] = ()
    progress: bool = False
    _started: float = field(default_factory=time.perf_counter, repr=False)
    _bar: Any = field(default=None, repr=False)

    def epochs(self, what: str, count: int, start: int = 0, unit: str = "epoch") -> Iterator[int]:
        """Numbers from a start on, under a progress bar."""
        todo = range(start, count)
        with tqdm(todo, desc=what, unit=unit, total=count, initial=start, disable=not self.progress) as bar:
            self._bar = bar
            yield from bar
        self._bar = None

    def record(self, step: int, values: Mapping[str, float], shown: Mapping[str, float] | None = None) -> None:
        """Keep the numbers, hand them to the trackers, and show some of them on the bar."""
        self.report.seconds = time.perf_counter() - self._started
        self.report.events.append({"step": step, "seconds": round(self.report.seconds, 3), **values})
        for tracker in self.trackers:
            tracker.log(step, values)
        if shown and self._bar is not None:
            self._bar.set_postfix({name: f"{value:.4f}" for name, value in shown.items()})

    def note(self, text: str) -> None:
        """Keep a warning or a decision in words."""
        self.report.notes.append(text)
