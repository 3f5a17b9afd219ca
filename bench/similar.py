"""Which texts mean the same product: `python bench/similar.py DATA_DIR [--seeds 0] [--steps 150] [--encoders FOLDER ...]`.

DATA_DIR holds pricerunner_offers/items.parquet. The offers of 30 % of the products are set aside. An encoder is trained on the
others (`same="product_id"`). Of every offer set aside, the nearest other one is taken: recall@1 is how often it is of the same
product. Beside it: the base, tf-idf of words and of character 3-4-grams, and folders of other encoders.
Titles that stand for several products, and repeated ones, are left out. Writes bench/results/similar.json.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from clock import commit_of
from sklearn.feature_extraction.text import TfidfVectorizer

from mecold import TextEncoder
from mecold.swap import write_text
from mecold.tuning.config import EncoderTraining
from mecold.tuning.train import train_encoder

RESULTS = Path(__file__).parent / "results"
TEST = 0.3


def parted(items: pl.DataFrame, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Offers to learn from, and those of unseen products that have another offer."""
    once = items.filter(pl.col("product_id").n_unique().over("title") == 1).unique(
        "title", keep="first", maintain_order=True
    )
    products = once["product_id"].unique().sort().to_numpy()
    drawn = np.random.default_rng(seed).permutation(products)[: int(TEST * len(products))].tolist()
    unseen = once.filter(pl.col("product_id").is_in(drawn)).filter(pl.len().over("product_id") > 1)
    return once.filter(~pl.col("product_id").is_in(drawn)), unseen


def recall(vectors: np.ndarray, things: np.ndarray, block: int = 1000) -> float:
    """Share of rows whose nearest other row is of the same thing."""
    hits = 0
    for start in range(0, len(things), block):
        own = slice(start, start + block)
        likeness = vectors[own] @ vectors.T
        likeness = np.asarray(likeness.todense() if hasattr(likeness, "todense") else likeness)
        rows = np.arange(len(likeness))
        likeness[rows, rows + start] = -2.0
        hits += int((things[likeness.argmax(1)] == things[own]).sum())
    return hits / len(things)


def measured(items: pl.DataFrame, seed: int, steps: int, encoders: list[str]) -> dict[str, float]:
    learned, unseen = parted(items, seed)
    texts, things = unseen["title"].to_list(), unseen["product_id"].to_numpy()
    print(f"seed {seed}: {len(learned):,} offers learned from, {len(texts):,} of {len(set(things)):,} unseen products")
    found = {
        "tf-idf of words": recall(TfidfVectorizer().fit_transform(texts), things),
        "tf-idf of character 3-4-grams": recall(
            TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 4)).fit_transform(texts), things
        ),
        "base": recall(TextEncoder().encode(texts), things),
    }
    for one in encoders:
        found[Path(one).name] = recall(TextEncoder(one, cache=None).encode(texts), things)
    if steps:
        with tempfile.TemporaryDirectory() as place:
            trained = train_encoder(
                learned, out=Path(place) / "encoder", same="product_id", config=EncoderTraining(steps=steps), rng=seed,
                progress=True,
            )  # fmt: skip
            found["trained"] = recall(TextEncoder(trained.folder, cache=None).encode(texts), things)
            found["seconds"] = trained.report.seconds
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", type=int, default=EncoderTraining.steps, help="0: train none.")
    parser.add_argument("--encoders", nargs="*", default=[])
    args = parser.parse_args()
    items = pl.read_parquet(args.data_dir / "pricerunner_offers" / "items.parquet")
    by_seed = {seed: measured(items, seed, args.steps, args.encoders) for seed in map(int, args.seeds.split(","))}
    write_text(RESULTS / "similar.json", json.dumps({"commit": commit_of(), "seeds": by_seed}, indent=1))
    for name in next(iter(by_seed.values())):
        print(f"| {name} | " + " | ".join(f"{one[name]:.3f}" for one in by_seed.values()) + " |")


if __name__ == "__main__":
    main()
