"""Behaviour and audiences: `python bench/behave.py DATA_DIR TASK [--model FOLDER] [--draws 15]`.

TASK is one of:
audience SET: 150 items with 60 users or more are taken out of every history; all users are ranked for each of them, from its
    text and its first k takers. `--model` keeps the fit between runs.
sessions: online_shoppers_intention; the kinds of traffic are new one at a time, without page_values unless `--page-values`.
churn: online_retail_2011; day 300, any purchase in the next 60 days, from earlier days.
segments: movielens_1m_users; gender and age from what films users liked, which nobody has labelled before.
"""

import argparse
from pathlib import Path

import numpy as np
import polars as pl
from scipy.stats import rankdata

from mecold import Recommender

TAKERS = (0, 1, 3, 5, 10, 20)


def auc(labels: np.ndarray, score: np.ndarray) -> float:
    """Chance that one who did it scores above one who did not."""
    found, ranks = labels.astype(bool), rankdata(score)
    n = int(found.sum())
    return float((ranks[found].sum() - n * (n + 1) / 2) / (n * (len(found) - n)))


def audience(args: argparse.Namespace) -> None:
    folder = args.data_dir / args.set
    log, items = (pl.read_parquet(folder / f"{name}.parquet") for name in ("interactions", "items"))
    order = next((name for name in ("timestamp", "position") if name in log.columns), None)
    log = log.select("user_id", "item_id", *([order] if order else []))
    counts = log.group_by("item_id").agg(pl.col("user_id").n_unique().alias("n")).filter(pl.col("n") >= 60)
    new = np.random.default_rng(0).permutation(counts.sort("item_id")["item_id"].to_numpy())[:150].tolist()
    known = log.filter(~pl.col("item_id").is_in(new))
    if args.model and args.model.exists():
        recommender = Recommender.load(args.model)
    else:
        recommender = Recommender(rng=0)
        recommender.fit_meta(
            known, items.select(name for name in items.columns if name in ("item_id", "title", "genres"))
        )
        if args.model:
            recommender.save(args.model)
    users = log["user_id"].unique().sort()
    found = recommender.audiences(known)
    rng, marks = np.random.default_rng(1), {}
    activity = dict(known.group_by("user_id").len().iter_rows())
    for item in new:
        takers = rng.permutation(log.filter(pl.col("item_id") == item)["user_id"].unique().sort().to_numpy()).tolist()
        for k in TAKERS:
            named = found.of(item, len(users), seeds=[one for one in takers[:k] if one in found])
            rest = set(takers[k:])
            labels = np.array([one in rest for one in named["user_id"]])
            scores = {
                "mecold": named["probability"].to_numpy(),
                "activity": [activity[one] for one in named["user_id"]],
            }
            if k:
                seeds = [one for one in takers[:k] if one in found]
                alike = dict(found.of(None, len(users), seeds=seeds).select("user_id", "probability").iter_rows())
                scores["mecold, takers alone"] = [alike[one] for one in named["user_id"]]
            for name, score in scores.items():
                score = np.asarray(score, float)
                top = np.lexsort((rng.random(len(score)), -score))[:50]
                chance = np.mean(score) if name == "mecold" else np.nan
                marks.setdefault((name, k), []).append((auc(labels, score), labels[top].mean(), chance, labels.mean()))
    print(f"| {args.set}: AUC / precision@50 | {' | '.join(f'k = {k}' for k in TAKERS)} |")
    for name in dict.fromkeys(name for name, _ in marks):
        means = [np.mean(marks[name, k], 0) if (name, k) in marks else None for k in TAKERS]
        print(f"| {name} | {' | '.join('' if one is None else f'{one[0]:.3f} / {one[1]:.3f}' for one in means)} |")
    told = [np.mean(marks["mecold", k], 0) for k in TAKERS]
    print(f"| mean probability / share of takers | {' | '.join(f'{one[2]:.4f} / {one[3]:.4f}' for one in told)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("task", choices=["audience", "sessions", "churn", "segments"])
    parser.add_argument("set", nargs="?", help="With audience: the set.")
    parser.add_argument("--model", type=Path, help="Where a fit is kept.")
    parser.add_argument("--draws", type=int, default=15)
    parser.add_argument("--page-values", action="store_true")
    args = parser.parse_args()
    {"audience": audience}[args.task](args)


if __name__ == "__main__":
    main()
