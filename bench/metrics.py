"""Metrics of many ranked lists: `python bench/metrics.py [--users 1000000] [--rectools PYTHON]`.

From frames (user, item, rank) of lists of 10 and of what followed, to nDCG@10, Recall@10 and MRR@10 per user: mecold,
ir-measures (on a share of the users, since it is slow) and RecTools (which pins an older numpy: name the interpreter of
an environment of its own). All in one run; peak memory is that of the process.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from mecold.evaluation.measures import per_user

METRICS = ("ndcg@10", "recall@10", "mrr@10")
ITEMS = 20_000

RECTOOLS = """
import sys, time, numpy as np, pandas as pd
from rectools.metrics import MAP, NDCG, MRR, Recall, calc_metrics
reco, truth = (pd.DataFrame(dict(np.load(p))).rename(columns={"user": "user_id", "item": "item_id"}) for p in sys.argv[1:3])
start = time.perf_counter()
found = calc_metrics({"ndcg": NDCG(10, divide_by_achievable=True), "recall": Recall(10), "mrr": MRR(10)}, reco, truth)
print(time.perf_counter() - start, found["ndcg"], found["mrr"])
"""


def frames(users: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Ranked lists of 10 and 1 to 10 relevant items per user, some of them among the ranked ones."""
    rng = np.random.default_rng(0)
    ranked = (rng.integers(0, ITEMS, (users, 1)) + 7 * np.arange(10)) % ITEMS
    sizes = rng.integers(1, 11, users)
    owner = np.repeat(np.arange(users), sizes)
    place = np.arange(len(owner)) - np.repeat(sizes.cumsum() - sizes, sizes)
    relevant = (ranked[owner, 0] + 7 * (2 * place + rng.integers(0, 2, users)[owner])) % ITEMS
    lists = pl.DataFrame(
        {"user": np.repeat(np.arange(users), 10), "item": ranked.ravel(), "rank": np.tile(np.arange(1, 11), users)}
    )
    return lists, pl.DataFrame({"user": owner, "item": relevant})


def ours(lists: pl.DataFrame, truth: pl.DataFrame, users: int) -> dict[str, float]:
    ranked = lists["item"].to_numpy().reshape(users, 10)
    ends = np.searchsorted(truth["user"].to_numpy(), np.arange(1, users))
    found = per_user(ranked, np.split(truth["item"].to_numpy(), ends), METRICS)
    return {name: float(values.mean()) for name, values in found.items()}


def theirs(lists: pl.DataFrame, truth: pl.DataFrame) -> dict[str, float]:
    import ir_measures
    from ir_measures import RR, R, nDCG

    run = lists.select(
        pl.col("user").cast(pl.String).alias("query_id"),
        pl.col("item").cast(pl.String).alias("doc_id"),
        (-pl.col("rank")).cast(pl.Float64).alias("score"),
    ).to_pandas()
    qrels = truth.select(
        pl.col("user").cast(pl.String).alias("query_id"),
        pl.col("item").cast(pl.String).alias("doc_id"),
        pl.lit(1).alias("relevance"),
    ).to_pandas()
    found = ir_measures.calc_aggregate([nDCG @ 10, R @ 10, RR @ 10], qrels, run)
    return {"ndcg@10": found[nDCG @ 10], "mrr@10": found[RR @ 10]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--share", type=int, default=10, help="ir-measures sees one user in so many")
    parser.add_argument("--rectools", help="python of an environment with rectools")
    args = parser.parse_args()
    lists, truth = frames(args.users)
    start = time.perf_counter()
    found = ours(lists, truth, args.users)
    print(f"mecold, {args.users:,} users: {time.perf_counter() - start:.1f} s, {found}")
    print(f"peak memory of the process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    few = args.users // args.share
    part = lists.filter(pl.col("user") < few), truth.filter(pl.col("user") < few)
    mine = ours(*part, few)
    start = time.perf_counter()
    other = theirs(*part)
    print(f"ir-measures, {few:,} users: {time.perf_counter() - start:.1f} s, {other}")
    assert all(abs(mine[name] - value) < 1e-5 for name, value in other.items()), mine
    if args.rectools:
        with tempfile.TemporaryDirectory() as place:
            paths = [str(Path(place) / name) for name in ("lists.npz", "truth.npz")]
            for path, frame in zip(paths, (lists, truth), strict=True):
                np.savez(path, **{name: frame[name].to_numpy() for name in frame.columns})
            done = subprocess.run([args.rectools, "-c", RECTOOLS, *paths], capture_output=True, text=True)
        print(f"RecTools, {args.users:,} users (s, ndcg, mrr): {done.stdout.strip() or done.stderr[-500:]}")


if __name__ == "__main__":
    sys.exit(main())
