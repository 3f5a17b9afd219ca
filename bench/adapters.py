"""Adapt and recommend for 1,000 cold users, inside implicit's interface: mecold against ALS with `recalculate_user=True`.

    python bench/adapters.py

A generated shop of 10,000 items, random text vectors, 10 items in each support, N = 10; ALS has as many factors as mecold's
vectors have dimensions. What is learned does not change what a call costs, so training is cut short. Medians of interleaved
repeats.
"""

import warnings
from collections.abc import Callable

import numpy as np
import polars as pl
import scipy.sparse as sp
import torch
from clock import machine, medians_ms
from implicit.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

from mecold import Catalog, MetaConfig, PrecomputedEncoder, TrainConfig
from mecold.shop import make_shop
from mecold_adapters.implicit import MecoldRecommender

ITEMS, USERS, SHOTS, N = 10_000, 1_000, 10, 10


def with_one_blas_thread(call: Callable[[], object]) -> Callable[[], object]:
    """As implicit asks for: its own threads and OpenBLAS's get in each other's way."""

    def limited() -> object:
        with threadpool_limits(1, "blas"):
            return call()

    return limited


def main() -> None:
    warnings.simplefilter("ignore")
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
