"""From a fitted system to ranked lists, in bounded memory; and what that costs in time and memory."""

import ctypes
import gc
import sys
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType

import numpy as np
import torch
from jaxtyping import Int32

from mecold.errors import InvalidDataError
from mecold.evaluation.protocol import Tasks
from mecold.evaluation.systems.base import Ranker, Supports

_SCORES_AT_ONCE = 1 << 24  # 64 MB of float32 scores; a few copies are alive at a time
_USERS_AT_ONCE = 512


def top(scores: np.ndarray, supports: Supports, candidates: np.ndarray | None, depth: int) -> np.ndarray:
    """The best rows per user, best first, the support and what is no candidate left out; padded with -1.

    Ties are settled as the protocol's reference does: `argpartition`, then a stable sort of what it kept; the same rule
    for every system. Which of many tied items it keeps depends on their order and on the processor. Candidates are put in
    a random order first: a system that tells nothing about them is ranked by chance, not by the order of the catalogue.

    Args:
        scores: `(users, items)`.
        supports: rows to leave out, by user.
        candidates: rows that may be recommended; None for all.
        depth: how many.
    """
    scores = np.array(scores, dtype=np.float32)
    for row, support in enumerate(supports):
        scores[row, support] = -np.inf
    if candidates is not None:
        shuffled = np.random.default_rng(0).permutation(candidates)
        inner = top(scores[:, shuffled], [candidates[:0]] * len(scores), None, depth)
        found = np.where(inner >= 0, shuffled[inner], -1)
        short = min(depth, scores.shape[1]) - found.shape[1]
        return np.pad(found, ((0, 0), (0, short)), constant_values=-1).astype(np.int32)
    depth = min(depth, scores.shape[1])
    best = np.argpartition(-scores, depth - 1, axis=1)[:, :depth]
    found = np.take_along_axis(scores, best, 1)
    order = np.argsort(-found, axis=1, kind="stable")
    rows = np.take_along_axis(best, order, 1).astype(np.int32)
    return np.where(np.take_along_axis(found, order, 1) > -np.inf, rows, -1).astype(np.int32)


def rank(
    ranker: Ranker, tasks: Tasks, candidates: np.ndarray | None, depth: int, n_items: int
) -> Int32[np.ndarray, "users depth"]:
    """Ranked lists for every user of the tasks, in batches."""
    step = max(1, min(_USERS_AT_ONCE, _SCORES_AT_ONCE // n_items))
    parts = [np.empty((0, min(depth, n_items)), np.int32)]
    for start in range(0, len(tasks), step):
        some = tasks.between(start, start + step)
        scores = _checked(ranker.scores(ranker.adapt(some)), len(some), n_items)
        parts.append(top(scores, some.supports, candidates, depth))
    return np.concatenate(parts)


def _checked(scores: np.ndarray, users: int, n_items: int) -> np.ndarray:
    scores = np.asarray(scores)
    if scores.shape != (users, n_items):
        raise InvalidDataError(
            f"Scores have shape {scores.shape} for {users:,} users; they must be ({users}, {n_items}): one row per user, "
            "one column per item of the catalogue."
        )
    if np.isnan(scores).any():
        bad = int(np.isnan(scores).any(1).sum())
        raise InvalidDataError(f"The scores of {bad:,} of {users:,} users hold NaN. Use -inf for 'never'.")
    return scores


def latency(ranker: Ranker, tasks: Tasks, depth: int, users: int = 100) -> dict[str, float]:
    """Milliseconds per user when users come one by one: adaptation, and scoring with the top `depth`; p50 and p95."""
    adapting, recommending = [], []
    for user in [*range(min(3, len(tasks))), *range(min(users, len(tasks)))]:  # three to warm up
        one = tasks.between(user, user + 1)
        began = time.perf_counter()
        state = ranker.adapt(one)
        _settled()
        adapted = time.perf_counter()
        top(ranker.scores(state), one.supports, None, depth)
        adapting.append(adapted - began)
        recommending.append(time.perf_counter() - adapted)
    values = {"adapt": adapting[3:], "recommend": recommending[3:]}
    return {
        f"{name}_{label}_ms": float(np.percentile(seconds, q)) * 1e3
        for name, seconds in values.items()
        for label, q in (("p50", 50), ("p95", 95))
        if seconds
    }


def _give_back() -> None:
    """Return freed memory to the system, as far as the C library can, so that the next rise is seen whole."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _settled() -> None:
    """Wait for the GPU, where there is one: its work is asynchronous."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@dataclass
class PeakMemory:
    """Context: how far the process's resident memory rose above where it stood, sampled every 20 ms."""

    peak: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> "PeakMemory":
        """Start to watch."""
        import psutil

        process = psutil.Process()
        _give_back()
        start = process.memory_info().rss

        def watch() -> None:
            while True:
                self.peak = max(self.peak, process.memory_info().rss - start)
                if self._stop.wait(0.02):
                    return

        self._thread = threading.Thread(target=watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
