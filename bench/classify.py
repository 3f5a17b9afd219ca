"""New categories: `python bench/classify.py DATA_DIR [--sets flipkart_products,instacart_products] [--seeds 0,1,2] [--draws 6]`.

DATA_DIR holds one folder per set with items.parquet: title, category, top (the branch), near_duplicate where sellers list one
product often (left out). Categories with 25 products or more. Whole branches are new, until two fifths of the categories are.
All new categories at once: k products each as examples, twenty others asked. Macro accuracy of new ones among themselves; of new
and known ones when both compete, and their harmonic mean; expected calibration error. Beside it logistic regression (C = 10) on
the same vectors, and the mean of examples plus the name's vector, in units of examples.
"""

import argparse
from pathlib import Path
from time import perf_counter

import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression

from mecold import ItemClassifier, TextEncoder, TextTemplate
from mecold.tasks.class_support import encode_names, unit

SHOTS = (1, 3, 5, 10)
LEAST, MOST, SHARE = 25, 20_000, 0.4
TITLE = TextTemplate(fields=("title",))


def table_of(path: Path) -> pl.DataFrame:
    items = pl.read_parquet(path).filter(
        pl.col("category").is_not_null() & ~pl.col("category").is_in(["missing", "other"])
    )
    if "near_duplicate" in items.columns:
        items = items.filter(~pl.col("near_duplicate"))
    if len(items) > MOST:
        items = items.sample(MOST, seed=0)
    return items.select("item_id", "title", "category", "top").filter(pl.len().over("category") >= LEAST)


def new_ones(items: pl.DataFrame, rng: np.random.Generator) -> list[str]:
    """Categories of whole branches."""
    branch = dict(items.select("category", "top").unique("category", keep="first", maintain_order=True).iter_rows())
    found: list[str] = []
    for top in rng.permutation(sorted(set(branch.values()))).tolist():
        own = [one for one, other in branch.items() if other == top]
        if len(own) <= len(branch) / 2 and len(found) < SHARE * len(branch):
            found += own
    return sorted(found)


def macro(found: list[str | None], wanted: list[str]) -> float:
    right = pl.DataFrame({"wanted": wanted, "right": [one == other for one, other in zip(found, wanted, strict=True)]})
    return float(right.group_by("wanted").agg(pl.col("right").mean())["right"].mean())


def calibration(chances: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error, fifteen bins."""
    place = np.minimum((chances * 15).astype(int), 14)
    return float(sum(abs(right[place == one].mean() - chances[place == one].mean()) * (place == one).mean()
                     for one in np.unique(place)))  # fmt: skip


def one_split(
    items: pl.DataFrame, encoder: TextEncoder, seed: int, draws: int, marks: dict[tuple[str, int], list[float]]
) -> None:
    rng = np.random.default_rng(seed)
    new = new_ones(items, rng)
    known = items.filter(~pl.col("category").is_in(new)).sample(fraction=1.0, shuffle=True, seed=seed)
    learned = known.filter(
        pl.int_range(pl.len()).over("category") < pl.min_horizontal(100, pl.len().over("category") * 4 // 5)
    )
    rest = known.filter(~pl.col("item_id").is_in(learned["item_id"].implode()))
    rest = rest.filter(pl.int_range(pl.len()).over("category") < 20)
    start = perf_counter()
    classifier = ItemClassifier.fit_meta(learned, branch="top", encoder=encoder, template=TITLE, rng=seed)
    marks.setdefault(("seconds of a fit", 0), []).append(perf_counter() - start)
    names = encode_names(new, encoder, " > ")
    for draw in range(draws):
        some = items.filter(pl.col("category").is_in(new)).sample(fraction=1.0, shuffle=True, seed=1000 * seed + draw)
        groups = {name: some.filter(pl.col("category") == name)["title"].to_list() for name in new}
        asked = [title for name in new for title in groups[name][10:30]]
        wanted = [name for name in new for _ in groups[name][10:30]]
        questions = unit(encoder.encode(asked))
        for k in SHOTS:

            def put(name: str, value: float, k: int = k) -> None:
                marks.setdefault((name, k), []).append(value)

            examples = {name: titles[:k] for name, titles in groups.items()}
            rows = unit(encoder.encode([title for titles in examples.values() for title in titles]))
            owner = np.repeat(np.arange(len(new)), [len(titles) for titles in examples.values()])
            plain = LogisticRegression(C=10, max_iter=1000).fit(rows, owner).predict(questions)
            put("logistic regression", macro([new[one] for one in plain], wanted))
            sums = np.stack([rows[owner == one].sum(0) for one in range(len(new))])
            for weight in (0.5, 1.0, 2.0):
                nearest = (questions @ unit(sums + weight * names).T).argmax(1)
                put(f"examples + {weight:g} x name", macro([new[one] for one in nearest], wanted))
            for read in (True, False):
                kind = "mecold" if read else "mecold without names"
                start = perf_counter()
                state = classifier.adapt(examples, names=read)
                put(f"{kind}, ms to adapt, texts encoded", 1e3 * (perf_counter() - start))
                found = classifier.predict(asked, state, none=False)
                right = np.array([one.label == other for one, other in zip(found, wanted, strict=True)])
                put(kind, macro([one.label for one in found], wanted))
                put(
                    f"{kind}, calibration error",
                    calibration(np.array([one.labels[0].probability for one in found]), right),
                )
            beside = classifier.adapt(examples, beside_known=True)
            parts = [
                macro([one.labels[0].name for one in classifier.predict(titles, beside, none=False)], own)
                for titles, own in ((asked, wanted), (rest["title"].to_list(), rest["category"].to_list()))
            ]
            put("both compete: new", parts[0])
            put("both compete: known", parts[1])
            put("both compete: harmonic mean", 2 * parts[0] * parts[1] / sum(parts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--sets", default="flipkart_products,instacart_products")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--draws", type=int, default=6)
    args = parser.parse_args()
    encoder = TextEncoder()
    for name in args.sets.split(","):
        items, marks = table_of(args.data_dir / name / "items.parquet"), {}
        encoder.encode(items["title"].to_list(), progress=True)
        for seed in map(int, args.seeds.split(",")):
            one_split(items, encoder, seed, args.draws, marks)
        print(
            f"{name}: {len(items):,} items, {items['category'].n_unique()} categories; k = {', '.join(map(str, SHOTS))}"
        )
        for row in dict.fromkeys(row for row, _ in marks):
            values = [np.mean(marks[row, k]) for k in (0, *SHOTS) if (row, k) in marks]
            print(f"| {name} | {row} | " + " | ".join(f"{one:.3f}" for one in values) + " |", flush=True)


if __name__ == "__main__":
    main()
