"""Hold your own ranker against mecold and the strong simple baselines, on users it has never seen."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mecold.evaluation.dataset import Dataset
from mecold.evaluation.run import evaluate
from mecold.evaluation.systems.base import Supports, Training
from mecold.shop import make_shop


def next_item_counts(training: Training) -> Callable[[Supports], np.ndarray]:
    """A Markov chain: what followed the last item, with popularity behind."""
    n = training.n_items
    follows = np.zeros((n, n), np.float32)
    for history in training.log.histories():
        np.add.at(follows, (history[:-1], history[1:]), 1)
    nobody = np.zeros(n, np.float32)

    def scores(supports: Supports) -> np.ndarray:
        return np.stack([follows[s[-1]] if len(s) else nobody for s in supports]) + training.tie

    return scores


def main() -> None:
    shop = make_shop(600, 1500, rng=0)
    data = Dataset.read(shop.interactions, shop.items, name="generated shop")
    with tempfile.TemporaryDirectory() as folder:
        report = evaluate([next_item_counts, "mecold,popularity,ease,directed"], data, seeds=(0,), out=folder)
        print(report.table())
        print("files:", ", ".join(sorted(path.name for path in Path(folder).iterdir() if path.is_file())))


if __name__ == "__main__":
    main()
