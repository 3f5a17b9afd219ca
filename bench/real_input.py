"""Real data through the command line: fit time, peak memory, and nDCG@10 of held-out users by number of shots.

    python bench/real_input.py DATA_DIR DATASET [--seed 0] [--reference reference_scores.json]

DATA_DIR/DATASET holds interactions.parquet and items.parquet. Users are split as the cold-start protocol says: bucket
0 or 1 of sha256("seed:user") with at least 11 distinct items are tested, bucket 2 of the same length is left out (it
belongs to the tuning of baselines), everyone else trains. The texts are encoded before the clock starts.
"""

import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import polars as pl
import torch

from mecold import Catalog, Recommender, TextEncoder
from mecold.interactions import Interactions
from mecold.metrics import hits, ndcg

SHOTS, QUERY, MIN_ITEMS = (0, 1, 3, 5, 10), 10, 11


def bucket(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:4], "big") % 10


def split(log: Interactions, catalog: Catalog, seed: int) -> tuple[pl.DataFrame, list[list[str]]]:
    """Training rows in order, and the histories of the test users."""
    ids, train, test = catalog.ids.to_list(), [], []
    for user, start, end in zip(log.users, log.offsets[:-1], log.offsets[1:], strict=True):
        history = [ids[row] for row in log.items[start:end]]
        place = bucket(seed, user) if len(history) >= MIN_ITEMS else 9
        if place > 2:
            train += [(user, item, position) for position, item in enumerate(history)]
        elif place < 2:
            test.append(history)
    return pl.DataFrame(train, schema=["user_id", "item_id", "position"], orient="row"), test


def score(recommender: Recommender, test: list[list[str]], catalog: Catalog) -> dict[int, float]:
    """Mean nDCG@10 by shots."""
    scores = {}
    for shots in SHOTS:
        rows = [(str(u), item, p) for u, h in enumerate(test) for p, item in enumerate(h[:shots])]
        ranked = torch.full((len(test), 10), -1)
        if shots:
            supports = pl.DataFrame(rows, schema=["user_id", "item_id", "position"], orient="row")
            lists = recommender.recommend_batch(supports, 10)
            for user, rank, item in lists.select("user_id", "rank", "item_id").iter_rows():
                ranked[int(user), rank - 1] = catalog.row_of[item]
        else:
            zero = recommender.recommend(recommender.adapt_user([]), 10)
            ranked[:] = torch.tensor([catalog.row_of[one.item] for one in zero])
        query = torch.full((len(test), QUERY), -2)
        for user, history in enumerate(test):
            future = [catalog.row_of[item] for item in history[shots : shots + QUERY]]
            query[user, : len(future)] = torch.tensor(future)
        mask = query >= 0
        scores[shots] = float(ndcg(hits(ranked, query, mask), mask.sum(1)).mean())
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("dataset")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reference", type=Path, help="scores of an independent implementation of the protocol")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    folder = args.data_dir / args.dataset
    catalog = Catalog.read(folder / "items.parquet")
    log = Interactions.read(folder / "interactions.parquet", catalog)
    train, test = split(log, catalog, args.seed)
    TextEncoder().encode(catalog.texts, progress=True)
    with tempfile.TemporaryDirectory() as place:
        train.write_parquet(f"{place}/train.parquet")
        command = [
            str(Path(sys.executable).with_name("mecold")), "fit", "--interactions", f"{place}/train.parquet",
            "--items", str(folder / "items.parquet"), "--out", f"{place}/model", "--seed", "0", "--json",
        ]  # fmt: skip
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        scores = score(Recommender.load(f"{place}/model"), test, catalog)
    report = {
        "dataset": args.dataset,
        "seed": args.seed,
        "test_users": len(test),
        "fit_command_seconds": round(seconds),
    }
    report |= {"peak_gib": round(peak, 2), "mecold": {k: round(v, 4) for k, v in scores.items()}}
    if args.reference:
        known = json.loads(args.reference.read_text())[args.dataset]["seeds"][str(args.seed)]
        wanted = ("popularity", "itemknn[shrink=10]", "ease[lambda=500]", "directed[lambda=500]")
        for name in wanted:
            report[name] = {k: round(known["user_test"][name][str(k)]["ndcg@10"], 4) for k in SHOTS}
        report["envelope"] = {k: round(known["user_envelope"][str(k)]["ndcg@10"], 4) for k in SHOTS}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
