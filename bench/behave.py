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
import scipy.sparse as sp
from scipy.sparse.linalg import svds
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression

from mecold import BehaviourTask, Recommender, past_behaviours, past_tastes, user_features

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


def curve(
    name: str, rows: dict[tuple[str, int], list[float]], shots: tuple[int, ...], chance: list[tuple[float, float]]
) -> None:
    """A table of areas under the curve, and how probabilities compare with what came."""
    print(f"| {name}: AUC | {' | '.join(f'k = {k}' for k in shots)} |")
    for method in dict.fromkeys(method for method, _ in rows):
        means = [f"{np.mean(rows[method, k]):.3f}" if (method, k) in rows else "" for k in shots]
        print(f"| {method} | {' | '.join(means)} |")
    told, true = (np.concatenate([one[at] for one in chance]) for at in (0, 1))
    bins = np.minimum((told * 10).astype(int), 9)
    error = sum(
        abs(told[bins == one].mean() - true[bins == one].mean()) * (bins == one).mean() for one in np.unique(bins)
    )
    print(
        f"| {name}: mean probability {told.mean():.3f}, share {true.mean():.3f}, expected calibration error {error:.3f} |"
    )


def draw(labels: np.ndarray, among: np.ndarray, k: int, rng: np.random.Generator) -> np.ndarray:
    """K users of each kind."""
    return np.concatenate([rng.permutation(among[labels[among] == one])[:k] for one in (1, 0)])


def plain(rows: np.ndarray, labels: np.ndarray, c: float = 1.0) -> np.ndarray:
    """Scores of a logistic regression."""
    fitted = LogisticRegression(C=c, max_iter=500).fit(rows, labels)
    return fitted.coef_[0], fitted.intercept_[0]


def sessions(args: argparse.Namespace) -> None:
    frame = pl.read_parquet(args.data_dir / "online_shoppers_intention" / "sessions.parquet").with_row_index("user_id")
    frame = frame.with_columns(
        pl.col("user_id").cast(pl.Int64),
        pl.lit("buys").alias("behaviour"),
        pl.col("operating_systems", "browser", "region").cast(pl.String),
    )
    frame = frame.rename({"traffic_type": "group", "revenue": "label"})
    frame = frame if args.page_values else frame.drop("page_values")
    sizes = frame.group_by("group").agg(pl.len().alias("n"), pl.col("label").cast(pl.Int64).sum().alias("did"))
    kinds = sizes.filter((pl.col("n") >= 100) & (pl.col("did") >= 25))["group"].sort().to_list()
    marks: dict[tuple[str, int], list[float]] = {}
    chance = []
    shots = (0, 1, 3, 5, 10, 20)
    for kind in kinds:
        task = BehaviourTask.fit_meta(frame.filter(pl.col("group") != kind))
        new = frame.filter(pl.col("group") == kind)
        labels, matrix = new["label"].to_numpy(), task.features.matrix(new, "users")[:, :-1]
        other = frame.filter(pl.col("group") != kind)
        weights, bias = plain(task.features.matrix(other, "users")[:, :-1], other["label"].to_numpy())
        rng = np.random.default_rng(int(kind))
        for _ in range(args.draws):
            order = rng.permutation(len(new))
            test, rest = order[: len(new) // 2], order[len(new) // 2 :]
            for k in shots:
                few = draw(labels, rest, k, rng)
                state = task.adapt(
                    new[few],
                    dict(zip(new["user_id"][few], labels[few].tolist(), strict=True)),
                    like="buys",
                    rate=labels.mean(),
                )
                told = task.score(state, new[test])["probability"].to_numpy()
                chance.append((told, labels[test]))
                marks.setdefault(("mecold", k), []).append(auc(labels[test], told))
                marks.setdefault(("pooled logistic regression", k), []).append(
                    auc(labels[test], matrix[test] @ weights + bias)
                )
                if k:
                    own, one = plain(matrix[few], labels[few])
                    marks.setdefault(("logistic regression on the shots", k), []).append(
                        auc(labels[test], matrix[test] @ own + one)
                    )
    curve("sessions", marks, shots, chance)
    print(task.told["buys"])


def churn(args: argparse.Namespace) -> None:
    log = pl.read_parquet(args.data_dir / "online_retail_2011" / "interactions.parquet")
    day = float(log["timestamp"].min()) + 300 * 86400
    past = past_behaviours(log, until=day)
    task = BehaviourTask.fit_meta(past)
    users = user_features(log, at=day)
    came = log.filter((pl.col("timestamp") >= day) & (pl.col("timestamp") < day + 60 * 86400))["user_id"].unique()
    labels = users["user_id"].is_in(came.implode()).to_numpy().astype(int)
    matrix = task.features.matrix(users, "users")[:, :-1]
    same = past.filter(pl.col("behaviour") == "came back")
    weights, bias = plain(task.features.matrix(same, "users")[:, :-1], same["label"].to_numpy())
    marks: dict[tuple[str, int], list[float]] = {}
    chance, shots, rng = [], (0, 1, 3, 5, 10, 20, 50, 200), np.random.default_rng(0)
    for _ in range(args.draws):
        order = rng.permutation(len(users))
        test, rest = order[: len(users) // 2], order[len(users) // 2 :]
        for k in shots:
            few = draw(labels, rest, k, rng)
            known = dict(zip(users["user_id"][few], labels[few].tolist(), strict=True))
            for name, like in (("mecold", "came back"), ("mecold, like nothing before", None)):
                state = task.adapt(users[few], known, like=like, rate=float(same["label"].mean()))
                told = task.score(state, users[test])["probability"].to_numpy()
                marks.setdefault((name, k), []).append(auc(labels[test], told))
                if like:
                    chance.append((told, labels[test]))
            marks.setdefault(("pooled logistic regression", k), []).append(
                auc(labels[test], matrix[test] @ weights + bias)
            )
            marks.setdefault(("recency alone", k), []).append(
                auc(labels[test], -users["days since last"].to_numpy()[test])
            )
            if k:
                own, one = plain(matrix[few], labels[few])
                marks.setdefault(("logistic regression on the shots", k), []).append(
                    auc(labels[test], matrix[test] @ own + one)
                )
    curve("came back", marks, shots, chance)
    print({name: dict(one) for name, one in task.told.items()})


def segments(args: argparse.Namespace) -> None:
    folder = args.data_dir / "movielens_1m_positive"
    log, items = (pl.read_parquet(folder / f"{name}.parquet") for name in ("interactions", "items"))
    log = log.select("user_id", "item_id", "timestamp")
    if args.model and args.model.exists():
        recommender = Recommender.load(args.model)
    else:
        recommender = Recommender(rng=0)
        recommender.fit_meta(log, items.select("item_id", "title", "genres"))
        if args.model:
            recommender.save(args.model)
    rest, past = past_tastes(log)
    task = BehaviourTask.fit_meta(past, recommender.user_vectors(rest))
    print(dict(task.told[""]))
    users = recommender.user_vectors(log)
    about = users.select("user_id").join(
        pl.read_parquet(args.data_dir / "movielens_1m_users" / "users.parquet"),
        on="user_id",
        how="left",
        maintain_order="left",
    )
    segments = {"women": about["gender"] == "F", "under 25": about["age"] < 25, "45 and over": about["age"] >= 45}
    owner = users["user_id"].to_list()
    place, column = {user: at for at, user in enumerate(owner)}, {item: at for at, item in enumerate(items["item_id"])}
    had = sp.csr_matrix(
        (np.ones(len(log)), ([place[one] for one in log["user_id"]], [column[one] for one in log["item_id"]])),
        (len(users), len(items)),
    )
    rows = sp.diags(1 / np.sqrt(np.asarray(had.sum(1)).ravel())) @ had
    rare = had @ sp.diags(np.log(len(users) / np.maximum(np.asarray(had.sum(0)).ravel(), 1)))
    rare = sp.diags(1 / np.maximum(np.sqrt(np.asarray(rare.multiply(rare).sum(1)).ravel()), 1e-9)) @ rare
    bases = {"64 factors": had, "64 factors of rows of length 1": rows, "64 factors, tf-idf": rare}
    factors = {}
    for name, matrix in bases.items():
        left, sizes, _ = svds(matrix, k=64, v0=np.ones(min(matrix.shape)))
        factors[name] = left * sizes
    factors["mecold's vectors"] = task.features.matrix(users, "users")[:, :-1]
    shots = (0, 5, 10, 20, 50, 200)
    for name, did in segments.items():
        labels, rng = did.to_numpy().astype(int), np.random.default_rng(0)
        marks: dict[tuple[str, int], list[float]] = {}
        chance = []
        for _ in range(args.draws):
            order = rng.permutation(len(users))
            test, others = order[:1500], order[1500:]
            for k in shots[1:]:
                few = draw(labels, others, k, rng)
                state = task.adapt(
                    users[few], dict(zip(users["user_id"][few], labels[few].tolist(), strict=True)), rate=labels.mean()
                )
                told = task.score(state, users[test])["probability"].to_numpy()
                chance.append((told, labels[test]))
                marks.setdefault(("mecold", k), []).append(auc(labels[test], told))
                for base, matrix in factors.items():
                    own, one = plain(matrix[few], labels[few], 10.0 if "mecold" not in base else 1.0)
                    marks.setdefault((f"logistic regression on {base}", k), []).append(
                        auc(labels[test], matrix[test] @ own + one)
                    )
        curve(name, marks, shots[1:], chance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("task", choices=["audience", "sessions", "churn", "segments"])
    parser.add_argument("set", nargs="?", help="With audience: the set.")
    parser.add_argument("--model", type=Path, help="Where a fit is kept.")
    parser.add_argument("--draws", type=int, default=15)
    parser.add_argument("--page-values", action="store_true")
    args = parser.parse_args()
    {"audience": audience, "sessions": sessions, "churn": churn, "segments": segments}[args.task](args)


if __name__ == "__main__":
    main()
