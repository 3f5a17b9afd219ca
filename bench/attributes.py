"""What attributes of users bring: `python bench/attributes.py DATA_DIR [--sets SET:FOLDER ...] [--seeds 0 1]`.

FOLDER holds users.parquet, what is known of the users of the set: `user_id` and one column per attribute; `random` draws
four columns that say nothing. Users are held out as in the user split of an evaluation. Prints nDCG@10 by how many of a
user's items are known: of popularity, of mecold without attributes, and with them; and how likely the difference at k = 0 to
popularity is by chance.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl
import torch
from clock import commit_of, machine

from mecold.evaluation.dataset import Dataset
from mecold.evaluation.protocol import Split, Tasks, split
from mecold.evaluation.ranking import rank
from mecold.evaluation.statistics import sign_flip
from mecold.evaluation.systems.base import Ranker, Training
from mecold.evaluation.systems.ours import Mecold
from mecold.math.metrics import hits, ndcg

SHOTS = (0, 1, 3, 5, 10)


def random_attributes(users: pl.Series) -> pl.DataFrame:
    """Four columns that say nothing: two of names, one of numbers, one of many names."""
    rng, size = np.random.default_rng(0), len(users)
    return pl.DataFrame(
        {
            "user_id": users,
            "one": rng.choice(["a", "b"], size),
            "two": rng.integers(0, 21, size),
            "three": rng.normal(size=size),
            "four": [f"t{value}" for value in rng.integers(0, 60, size)],
        }
    )


def quality(rows: np.ndarray, tasks: Tasks) -> np.ndarray:
    """nDCG@10 of each user."""
    sizes = torch.tensor([len(query) for query in tasks.queries])
    mask = torch.arange(int(sizes.max())) < sizes[:, None]
    relevant = torch.zeros(mask.shape, dtype=torch.long)
    relevant[mask] = torch.from_numpy(np.concatenate(tasks.queries))
    found: np.ndarray = ndcg(hits(torch.from_numpy(rows).long(), relevant, mask), sizes).numpy()
    return found


def fitted(dataset: Dataset, parts: Split, seed: int) -> list[np.ndarray]:
    """nDCG@10 of the test users, by number of shots."""
    ranker = Ranker.of(Mecold().fit(Training(parts.train, dataset, seed=seed)))
    asked = [parts.tasks("test", shots) for shots in SHOTS]
    return [quality(rank(ranker, tasks, None, 10, dataset.catalog.size), tasks) for tasks in asked]


def measure(folder: Path, known: str, seed: int) -> None:
    """Print the rows of one set and seed."""
    files = folder / "interactions.parquet", folder / "items.parquet"
    plain = Dataset.read(*files)
    attributes = random_attributes(plain.log.users) if known == "random" else folder.parent / known / "users.parquet"
    told = Dataset.read(*files, attributes=attributes)
    parts = split(plain, "user", seed)
    best = np.argsort(-Training(parts.train, plain).counts, kind="stable")[:10]
    tasks = parts.tasks("test", 0)
    popular = quality(np.tile(best, (len(tasks), 1)), tasks)
    print(f"| {plain.name} | {seed} | popularity | {popular.mean():.4f} | | | | | |")
    for name, data in (("mecold", plain), (f"mecold, {known}", told)):
        found = fitted(data, split(data, "user", seed), seed)
        p = sign_flip(found[0] - popular)
        print(f"| | | {name} | {' | '.join(f'{one.mean():.4f}' for one in found)} | {p:.2g} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--sets", nargs="+", default=["movielens_1m_positive:movielens_1m_users", "xwines_slim:random"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    args = parser.parse_args()
    print(f"{machine()}, commit {commit_of()}\n")
    print(f"| set | seed | system | {' | '.join(f'k={shots}' for shots in SHOTS)} | p at k=0 |")
    print(f"|---|---|---|{'---|' * (len(SHOTS) + 1)}")
    for one in args.sets:
        name, _, known = one.partition(":")
        for seed in args.seeds:
            measure(args.data_dir / name, known, seed)


if __name__ == "__main__":
    main()
