"""What happened in a fit: curves and notes, as values, as JSON lines, and through one-method trackers."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


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
    _started: float = field(default_factory=time.perf_counter, repr=False)

    def record(self, step: int, values: Mapping[str, float], trackers: Sequence[Tracker]) -> None:
        """Keep the numbers and hand them to the trackers."""
        self.seconds = time.perf_counter() - self._started
        self.events.append({"step": step, "seconds": round(self.seconds, 3), **values})
        for tracker in trackers:
            tracker.log(step, values)

    def curve(self, name: str) -> list[tuple[int, float]]:
        """(step, value) of one number over the fit, such as `"loss"` or `"held_out/ndcg@10"`."""
        return [(int(event["step"]), event[name]) for event in self.events if name in event]

    def to_jsonl(self) -> str:
        """One JSON object a line: the events, then one with the notes."""
        last = {"best_step": self.best_step, "seconds": round(self.seconds, 3), "notes": self.notes}
        return "".join(json.dumps(line) + "\n" for line in [*self.events, last])
