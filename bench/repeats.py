"""What comes again: `python bench/repeats.py DATA_DIR [--sets SET ...] [--seeds 0 1 2]`.

Users are held out as in the user split of an evaluation. All that a user did is cut in the middle, items as often as they
came; the next ten different items are to be found, whether the user had them before or not. Prints nDCG@10 of lists that may
hold what the user has: of popularity, of what this user had before (by how often, then by how long ago, filled up by
popularity), and of mecold without and with what it learned of repeats.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from clock import commit_of, machine

from mecold.data.histories import Histories
from mecold.evaluation.dataset import Dataset
from mecold.evaluation.protocol import split
from mecold.evaluation.statistics import sign_flip
from mecold.evaluation.systems.base import Training
from mecold.evaluation.systems.ours import FittedMecold, Mecold
from mecold.math.metrics import hits, ndcg
from mecold.meta.again import histories_of

K, LEAST = 10, 11


def ranked(scores: np.ndarray) -> np.ndarray:
    """The best rows."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :K]


def before(rows: list[np.ndarray], counts: np.ndarray) -> np.ndarray:
    """Scores of what users had before, above those of popularity."""
    scores = np.tile(counts / (counts.max() + 1), (len(rows), 1))
    for user, own in enumerate(rows):
        scores[user] += np.bincount(own, minlength=len(counts))
        scores[user, own] += np.arange(len(own)) / len(own) / 2  # the last of several places counts
    return scores


def ours(system: FittedMecold, support: Histories, *, learned: bool) -> np.ndarray:
    """Scores of all items, with what was learned of repeats or without."""
    head, space = system.model.head, system.shelf.space
    scores = space.scores(head.adapt(space, support))
    if learned:
        users, places = support.mask.nonzero(as_tuple=True)
        scores[users, support.rows[users, places]] += head.again(support)[users, places]
    return scores.numpy()


def measure(folder: Path, seed: int) -> None:
    """Print the row of one set and seed."""
    dataset = Dataset.read(folder / "interactions.parquet", folder / "items.parquet")
    parts = split(dataset, "user", seed)
    if parts.test.again is None:
        raise SystemExit(f"{folder.name} has no repeats.")
    training = Training(parts.train, dataset, seed=seed)
    system = Mecold().fit(training)
    log = parts.test.again
    known, asked = [], []
    for start, end in zip(log.offsets[:-1], log.offsets[1:], strict=True):
        own = log.items[start:end]
        if len(own) >= LEAST:
            known.append(own[: len(own) // 2])
            asked.append(np.array(list(dict.fromkeys(own[len(own) // 2 :].tolist()))[:K]))
    sizes = torch.tensor([len(one) for one in asked])
    mask = torch.arange(K) < sizes[:, None]
    relevant = torch.zeros(mask.shape, dtype=torch.long)
    relevant[mask] = torch.from_numpy(np.concatenate(asked))
    support = histories_of(known)
    with torch.inference_mode():
        scores = {
            "popularity": np.tile(training.counts, (len(known), 1)),
            "had before": before(known, training.counts),
            "mecold, not learned": ours(system, support, learned=False),
            "mecold": ours(system, support, learned=True),
        }
    found = {
        name: ndcg(hits(torch.from_numpy(ranked(one)), relevant, mask), sizes).numpy() for name, one in scores.items()
    }
    again = np.mean([np.isin(a, b).mean() for a, b in zip(asked, known, strict=True)])
    values = " | ".join(f"{one.mean():.4f}" for one in found.values())
    p = sign_flip(found["mecold"] - found["had before"])
    print(f"| {dataset.name} | {seed} | {len(known):,} | {again:.2f} | {values} | {p:.2g} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--sets", nargs="+", default=["online_retail_2011"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    args = parser.parse_args()
    print(f"{machine()}, commit {commit_of()}\n")
    print("| set | seed | users | had before | popularity | what they had | mecold, not learned | mecold | p |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in args.sets:
        for seed in args.seeds:
            measure(args.data_dir / name, seed)


if __name__ == "__main__":
    main()
