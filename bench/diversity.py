"""What diversity and caps cost and bring: `python bench/diversity.py DATA_DIR [--sets SET:GROUP ...] [--users 300]`.

DATA_DIR holds one folder per set with interactions.parquet and items.parquet; GROUP is the item column whose groups are
capped, or `first_word` for that of the title. Users are held out as in the user split of an evaluation; five of their items
are known, the next ten are to be found. Prints nDCG@10 and the spread of the lists, the mean of 1 - cosine of the texts of
two items of one list.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl
import torch
from clock import commit_of, machine, medians_ms

from mecold.evaluation.dataset import Dataset
from mecold.evaluation.protocol import Tasks, split
from mecold.evaluation.systems.base import Training
from mecold.evaluation.systems.ours import FittedMecold, Mecold
from mecold.math.metrics import hits, ndcg
from mecold.space.index import Hidden, Ranked
from mecold.space.rerank import Rerank, spread

K, SHOTS = 10, 5
LEVELS = (0.0, 0.1, 0.3, 0.5)


def groups_of(items: pl.DataFrame, column: str) -> np.ndarray:
    """A number for the group of each row, -1 for none."""
    values = items["title"].str.extract(r"(\w+)") if column == "first_word" else items[column]
    return values.cast(pl.String).rank("dense").fill_null(0).to_numpy().astype(np.int64) - 1


def lists_of(system: FittedMecold, tasks: Tasks, rerank: Rerank | None) -> Ranked:
    """Lists of the tasks' users."""
    shelf, users = system.shelf, system.adapt(tasks.supports, tasks.times)

    def find(some: np.ndarray | None, depth: int) -> Ranked:
        which = np.arange(len(tasks)) if some is None else some
        hidden = Hidden.of([tasks.supports[user] for user in which.tolist()])
        return shelf.index.search(shelf.space, shelf.out, users.take(torch.from_numpy(which)), depth, hidden)

    return rerank.best(shelf.space, K, find) if rerank else find(None, K)


def quality(found: Ranked, tasks: Tasks) -> float:
    """Mean nDCG@10."""
    sizes = torch.tensor([len(query) for query in tasks.queries])
    mask = torch.arange(int(sizes.max())) < sizes[:, None]
    relevant = torch.zeros(mask.shape, dtype=torch.long)
    relevant[mask] = torch.from_numpy(np.concatenate(tasks.queries))
    ranked = torch.from_numpy(np.where(found.valid, found.rows, -1))
    return float(ndcg(hits(ranked, relevant, mask), sizes).mean())


def measure(folder: Path, column: str, users: int) -> None:
    """Print the rows of one set."""
    dataset = Dataset.read(folder / "interactions.parquet", folder / "items.parquet")
    parts = split(dataset, "user", 0)
    system = Mecold().fit(Training(parts.train, dataset))
    tasks = parts.tasks("test", SHOTS).head(users)
    groups = groups_of(dataset.items, column)
    settings = {f"diversity {level:g}": Rerank(level) if level else None for level in LEVELS}
    settings[f"at most 1 of a {column}"] = Rerank(0.0, lambda rows: groups[rows], 1)
    settings[f"diversity 0.3, at most 1 of a {column}"] = Rerank(0.3, lambda rows: groups[rows], 1)
    times = medians_ms({name: lambda one=one: lists_of(system, tasks, one) for name, one in settings.items()}, 3)  # type: ignore[misc]
    for name, one in settings.items():
        found = lists_of(system, tasks, one)
        apart = float(spread(system.shelf.space, found).mean())
        print(
            f"| {dataset.name} | {name} | {quality(found, tasks):.4f} | {apart:.3f} | {times[name] / len(tasks):.3f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--sets", nargs="+", default=["xwines_slim:brand", "online_retail_2011:first_word"])
    parser.add_argument("--users", type=int, default=300)
    args = parser.parse_args()
    print(f"{machine()}, commit {commit_of()}; {args.users} users, {SHOTS} items known of each\n")
    print("| set | list | nDCG@10 | spread | ms per user |")
    print("|---|---|---|---|---|")
    for one in args.sets:
        name, _, column = one.partition(":")
        measure(args.data_dir / name, column, args.users)


if __name__ == "__main__":
    main()
