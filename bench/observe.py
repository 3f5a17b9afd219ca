"""What observing is worth: `python bench/observe.py DATA_DIR [--sets SET ...] [--seeds 0 ...]`, and what it costs: `--cost`.

The first 70 % of a log are read by a fit. The rest comes in four steps of time. Before each step, four models of the same
start say what users of that step will take next: one that learns nothing after its fit (*none*), one that observes (*observed*),
one that also refreshes (*refreshed*), and one that is fitted anew of all there is (*refitted*). All get the same histories, up
to the step. Prints nDCG@10 by step and over all of them; and, where only *late* items, which nobody had touched at the first fit,
are ranked, what a wanted one adds to it, by how many had touched it when it was asked for.

With `--cost`: seconds of `observe` and of `refresh` on generated shops.
"""

import argparse
import json
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np
import polars as pl
from clock import commit_of, machine

from mecold import PrecomputedEncoder, Recommender
from mecold.evaluation.dataset import Dataset
from mecold.shop import make_shop

START, STEPS, K, MOST_USERS, LEAST = 0.7, 4, 10, 3_000, 30
SIZES = ((2_000, 10_000), (10_000, 50_000))


def gains(
    model: Recommender, before: pl.DataFrame, asked: pl.DataFrame, among: list[str] | None = None
) -> pl.DataFrame:
    """For each wanted pair of user and item: what its place in the user's list adds to the user's nDCG@10."""
    known = before.filter(pl.col("user_id").is_in(asked["user_id"].unique().implode()))
    others = asked.filter(~pl.col("user_id").is_in(before["user_id"].unique().implode()))["user_id"].unique().to_list()
    lists = model.recommend_batch(known, K, users=others, on_unknown="drop", among=among)
    ideal = np.cumsum(1 / np.log2(np.arange(K) + 2))
    wanted = asked.with_columns(n=pl.len().over("user_id").clip(upper_bound=K))
    found = wanted.join(lists, on=["user_id", "item_id"], how="left")
    best = pl.Series(ideal).gather(found["n"] - 1)
    gain = (1 / (found["rank"].cast(pl.Float64) + 1).log(2)).fill_null(0.0) / best
    return found.select("user_id", "item_id").with_columns(gain=gain)


def steps_of(log: pl.DataFrame) -> list[tuple[pl.DataFrame, pl.DataFrame]]:
    """What was known before each step, and what came in it."""
    cuts = [log["timestamp"].quantile(START + (1 - START) * step / STEPS) for step in range(STEPS)]
    ends = [*cuts[1:], log["timestamp"].max() + 1]
    time = pl.col("timestamp")
    return [
        (log.filter(time <= cut), log.filter((time > cut) & (time <= end))) for cut, end in zip(cuts, ends, strict=True)
    ]


def measure(folder: Path, seed: int) -> Iterator[tuple[str, dict[str, float]]]:
    """nDCG@10 of the four models: by step, over all steps, and of late items by how many had touched them."""
    data = Dataset.read(folder / "interactions.parquet", folder / "items.parquet")
    log = pl.read_parquet(folder / "interactions.parquet", columns=["user_id", "item_id", "timestamp"])
    log = log.sort("timestamp", maintain_order=True).unique(["user_id", "item_id"], keep="first", maintain_order=True)
    encoder = PrecomputedEncoder.of(data.catalog.texts, data.vectors)
    items, rng = data.items, np.random.default_rng(seed)

    def fitted(part: pl.DataFrame) -> Recommender:
        model = Recommender(encoder, rng=seed)
        model.fit_meta(part, items)
        return model

    steps = steps_of(log)
    start, touched = fitted(steps[0][0]), set(steps[0][0]["item_id"].to_list())
    late = [item for item in data.catalog.ids.to_list() if item not in touched]
    models = {"none": start, "observed": _copy(start, encoder), "refreshed": _copy(start, encoder)}
    whole: dict[str, list[float]] = {}
    of_late: list[pl.DataFrame] = []
    for place, (before, coming) in enumerate(steps):
        if place:
            models["observed"].observe(steps[place - 1][1])
            models["refreshed"].observe(steps[place - 1][1])
            models["refreshed"].refresh()
        models["refitted"] = start if not place else fitted(before)
        users = coming["user_id"].unique().sort()
        chosen = users.gather(np.sort(rng.permutation(len(users))[:MOST_USERS]))
        asked = coming.filter(pl.col("user_id").is_in(chosen.implode())).select("user_id", "item_id")
        found = {name: gains(model, before, asked)["gain"].sum() / len(chosen) for name, model in models.items()}
        for name, value in (found | {"n": float(len(chosen))}).items():
            whole.setdefault(name, []).append(value)
        yield f"step {place + 1}", found | {"n": len(chosen), "moved": models["refreshed"].info()["log"]["moved"]}
        wanted = asked.filter(pl.col("item_id").is_in(late))
        if place and wanted.height:
            counts = before["item_id"].value_counts(name="had")
            parts = [gains(model, before, wanted, late)["gain"].alias(name) for name, model in models.items()]
            of_late.append(wanted.join(counts, on="item_id", how="left", maintain_order="left").hstack(parts))
    yield "all steps", {name: sum(values) if name == "n" else float(np.mean(values)) for name, values in whole.items()}
    rows = pl.concat(of_late).with_columns(pl.col("had").fill_null(0)) if of_late else pl.DataFrame()
    for low, high in ((0, 0), (1, 2), (3, 9), (10, 1 << 30)) if rows.height else ():
        some = rows.filter(pl.col("had").is_between(low, high))
        if some.height >= LEAST:
            yield (
                f"late items, had by {low}-{high if high < 1 << 30 else ''}",
                {name: some[name].mean() for name in models} | {"n": some.height},
            )


def _copy(model: Recommender, encoder: PrecomputedEncoder) -> Recommender:
    with tempfile.TemporaryDirectory() as place:
        model.save(f"{place}/m")
        return Recommender.load(f"{place}/m", encoder=encoder)


def cost(items: int, users: int) -> dict[str, float]:
    """Seconds of what a shop of so many items and users asks of a model, and bytes of what is kept for it."""
    shop = make_shop(items, users, rng=0)
    texts = Dataset.read(shop.interactions, shop.items).catalog.texts
    of_text = dict(zip(dict.fromkeys(texts), np.random.default_rng(0).normal(size=(len(set(texts)), 384)), strict=True))
    encoder = PrecomputedEncoder.of(texts, np.stack([of_text[text] for text in texts]).astype(np.float32))
    cut = shop.interactions.height - 12_000
    model = Recommender(encoder, rng=0)
    begin = perf_counter()
    model.fit_meta(shop.interactions[:cut], shop.items)
    found = {"items": items, "users": users, "rows": cut, "fit": perf_counter() - begin}
    for size in (1, 1_000, 10_000):
        took = []
        for _ in range(3 if size < 10_000 else 1):
            batch, cut = shop.interactions[cut : cut + size], cut + size
            begin = perf_counter()
            model.observe(batch)
            took.append(perf_counter() - begin)
        found[f"observe {size:,}"] = float(np.median(took))
        if size == 10_000:
            break
    begin = perf_counter()
    model.refresh()
    found["refresh"] = perf_counter() - begin
    with tempfile.TemporaryDirectory() as place:
        model.save(f"{place}/m")
        found["log, MB"] = sum(path.stat().st_size for path in Path(place, "m").glob("log*")) / 1e6
        found["model, MB"] = sum(path.stat().st_size for path in Path(place, "m").iterdir()) / 1e6
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path, nargs="?")
    parser.add_argument("--sets", nargs="+", default=["online_retail_2011", "xwines_slim", "movielens_1m_positive"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cost", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{machine()}, commit {commit_of()}\n", flush=True)
    if args.cost:
        for size in SIZES:
            print(json.dumps({name: round(value, 3) for name, value in cost(*size).items()}), flush=True)
        return
    print(
        "| set | seed | | n | moved | none | observed | refreshed | refitted |\n|---|---|---|---|---|---|---|---|---|"
    )
    for name in args.sets:
        for seed in args.seeds:
            for row, found in measure(args.data_dir / name, seed):
                numbers = " | ".join(f"{found[model]:.4f}" for model in ("none", "observed", "refreshed", "refitted"))
                print(
                    f"| {name} | {seed} | {row} | {found['n']:,.0f} | {found.get('moved', '')} | {numbers} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
