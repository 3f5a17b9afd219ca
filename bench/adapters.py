"""mecold beside implicit's ALS: what a call costs, and how cold users are ranked.

    python bench/adapters.py                                     # cost
    python bench/adapters.py DATA_DIR --sets NAME,NAME [--seeds 0]  # quality, full protocol

Cost: adapt and recommend for 1,000 cold users inside implicit's interface, mecold against ALS with `recalculate_user=True`. A
generated shop of 10,000 items, random text vectors, 10 items in each support, N = 10; ALS has as many factors as mecold's
vectors have dimensions. What is learned does not change what a call costs, so training is cut short. Medians of interleaved
repeats.

Quality: the host alone (ALS on all training users, cold users folded in; rank and confidence tuned on validation users per
number of shots), mecold alone, and mecold with the item factors of an untuned ALS of rank 64 in place of its symmetric
channel; that one was fitted on four fifths of the training users, so that mecold can learn from the others how far to
trust it. Means over the users of all seeds, with 95 % intervals.
"""

import argparse
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse as sp
import torch
from clock import commit_of, machine, medians_ms
from implicit.als import AlternatingLeastSquares
from mecold.evaluation.systems.others import ALS
from threadpoolctl import threadpool_limits

from mecold import Catalog, MetaConfig, PrecomputedEncoder, TrainConfig
from mecold.evaluation.dataset import Dataset
from mecold.evaluation.run import evaluate
from mecold.evaluation.systems.base import Training
from mecold.evaluation.systems.ours import FittedMecold
from mecold.meta.fit import fit
from mecold.shop import make_shop
from mecold_adapters.implicit import MecoldRecommender, warm_model

ITEMS, USERS, SHOTS, N = 10_000, 1_000, 10, 10


def with_one_blas_thread(call: Callable[[], object]) -> Callable[[], object]:
    """As implicit asks for: its own threads and OpenBLAS's get in each other's way."""

    def limited() -> object:
        with threadpool_limits(1, "blas"):
            return call()

    return limited


@dataclass(frozen=True)
class HostAndMecold:
    """mecold on the item factors of ALS."""

    name: str = "als+mecold"

    def fit(self, training: Training) -> FittedMecold:
        """Fit the host on four fifths of the users, then mecold on all."""
        log, catalog = training.log, training.dataset.catalog
        unseen = np.random.default_rng(training.seed).random(len(log)) < 0.2
        seen = Training(log.take(np.flatnonzero(~unseen)), training.dataset, training.seed)
        host = ALS().fit(seen).model
        factors = warm_model(host, catalog.ids.to_list(), seen.log.users.to_list()).to_factors(
            unseen_users=log.users.filter(pl.Series(unseen)).to_list()
        )
        fitted = fit(
            log, catalog, torch.from_numpy(training.vectors), MetaConfig(),
            factors=factors, rng=np.random.default_rng(training.seed),
        )  # fmt: skip
        return FittedMecold(fitted.head, fitted.space, fitted.head.coefficients())


def quality(data_dir: Path, name: str, seeds: list[int]) -> None:
    folder = data_dir / name
    dataset = Dataset.read(folder / "interactions.parquet", folder / "items.parquet", name=name)
    systems = ["als", "mecold", HostAndMecold()]
    found = evaluate(
        systems, dataset, protocol="user", seeds=seeds, shots=(0, 1, 3, 5, 10, 20), tune=True, progress=True
    )
    scores = {
        system: {k: cell["ndcg@10"] for k, cell in one["mean"].items()} for system, one in found.data["systems"].items()
    }
    shots = list(scores["mecold"])
    users = ", ".join(f"{k}: {scores['mecold'][k]['users']:,}" for k in shots)
    print(f"\nUsers of seeds {seeds} by k: {users}.\n")
    print(f"| {name} | " + " | ".join(f"k = {k}" for k in shots) + " |\n|" + "---|" * (len(shots) + 1))
    for system, one in scores.items():
        cells = [f"{one[k]['mean']:.4f} [{one[k]['low']:.3f}, {one[k]['high']:.3f}]" for k in shots]
        print(f"| {system} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path, nargs="?", help="measure quality on the sets in this folder")
    parser.add_argument("--sets", default="movielens_1m_positive,amazon_video_games_2018")
    parser.add_argument("--seeds", default="0,1,2")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.data_dir is None:
        cost()
        return
    print(machine(), commit_of())
    for name in args.sets.split(","):
        quality(args.data_dir, name, [int(seed) for seed in args.seeds.split(",")])


def cost() -> None:
    rng = np.random.default_rng(0)
    shop = make_shop(n_items=ITEMS, n_users=4_000, rng=0)
    items = shop.items.with_columns(pl.int_range(pl.len()).alias("item_id"))
    texts = list(dict.fromkeys(Catalog.read(items).texts))
    encoder = PrecomputedEncoder.of(texts, rng.normal(size=(len(texts), 384)).astype(np.float32), "random")
    column = {item: place for place, item in enumerate(shop.items["item_id"])}
    owners = shop.interactions["user_id"].rank("dense").to_numpy().astype(np.int64) - 1
    at = owners, np.array([column[item] for item in shop.interactions["item_id"]])
    log = sp.csr_matrix((np.ones(len(owners), np.float32), at), (owners.max() + 1, ITEMS))
    log.data[:] = 1

    ours = MecoldRecommender(items, encoder=encoder, config=MetaConfig(training=TrainConfig(epochs=0, calibrate=False)))
    ours.fit(log, show_progress=False)
    dim = ours.recommender.info()["dim"] if ours.recommender else 0
    als = AlternatingLeastSquares(factors=dim, iterations=1, num_threads=torch.get_num_threads(), random_state=0)
    with_one_blas_thread(lambda: als.fit(log, show_progress=False))()

    rows = np.concatenate([rng.choice(ITEMS, SHOTS, replace=False) for _ in range(USERS)])
    ends = np.arange(USERS + 1) * SHOTS
    cold = sp.csr_matrix((np.ones(len(rows), np.float32), rows, ends), (USERS, ITEMS))
    users = np.arange(USERS)
    found = medians_ms(
        {
            "mecold": lambda: ours.recommend(users, cold, N=N),
            "als": with_one_blas_thread(lambda: als.recommend(users, cold, N=N, recalculate_user=True)),
        },
        7,
    )
    print(machine() + "\n")
    print("| dim | mecold, ms | ALS, ms | ratio |\n|---|---|---|---|")
    print(f"| {dim} | {found['mecold']:.0f} | {found['als']:.0f} | {found['mecold'] / found['als']:.2f} |")


if __name__ == "__main__":
    main()
