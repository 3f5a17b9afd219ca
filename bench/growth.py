"""What a fit costs, and how it grows: `python bench/growth.py [DATA_DIR]`.

On generated shops of growing size with random text vectors, or on the real sets in DATA_DIR (one folder per set with
interactions.parquet and items.parquet), whole logs, texts encoded before the clock starts. One fit at a time, each in a
process of its own; seconds, and how far resident memory rose. Quality is not looked at.
"""

import json
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import numpy as np
import polars as pl
from clock import machine

from mecold.shop import COMPANION, companions, make_shop, within_type

SIZES = (
    (1_000, 10_000, 1.0), (4_000, 10_000, 1.0), (16_000, 10_000, 1.0), (4_000, 160_000, 1.0), (10_000, 50_000, 1.0),
    (100_000, 200_000, 1.7), (1_000_000, 1_000_000, 1.8),
)  # fmt: skip
"""Items, users, and times the usual length of a history."""

_CHUNK = 50_000  # users drawn at once


def shop_of(n_items: int, n_users: int, longer: float) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Interactions and items of a shop as `make_shop` has them, drawn for many users at once: nobody buys what they have, and
    who would buys nothing instead.
    """
    shop, rng = make_shop(n_items, 60, rng=0), np.random.default_rng(1)
    kinds, styles = shop.item_type.max() + 1, shop.item_style.max() + 1
    companion = companions()
    sold, bounds = [], []
    for style in range(styles):
        chance = within_type(shop, style)
        for kind in range(kinds):
            pool = np.flatnonzero(shop.item_type == kind)
            sold.append(pool)
            bounds.append(style * kinds + kind + np.cumsum(chance[pool]))
    items, edges = np.concatenate(sold), np.concatenate(bounds)
    parts = []
    for start in range(0, n_users, _CHUNK):
        n = min(_CHUNK, n_users - start)
        taste = rng.dirichlet(np.full(kinds, 0.06), size=n).cumsum(1)
        favourite, opens = rng.integers(styles, size=n), 1_700_000_000 + rng.integers(300 * 86_400, size=n)
        length = np.clip((longer * rng.lognormal(2.4, 0.6, n)).astype(int), 1, 60)
        session, left, kind = np.full(n, -1), np.zeros(n, int), np.zeros(n, int)
        for step in range(length.max()):
            new = left == 0
            session, left = session + new, np.where(new, rng.integers(1, 5, size=n), left) - 1
            kind = np.where(new, (rng.random((n, 1)) > taste).sum(1).clip(max=kinds - 1), kind)
            group = favourite * kinds + kind
            item = items[np.searchsorted(edges, group + rng.random(n)).clip(max=len(items) - 1)]
            some = step < length
            times = opens + session * 86_400 * 6 + step * 40
            parts.append(
                pl.DataFrame({"user": np.flatnonzero(some) + start, "item": item[some], "timestamp": times[some]})
            )
            kind = np.where(rng.random(n) < COMPANION, companion[kind], kind)
    log = (
        pl.concat(parts)
        .unique(["user", "item"], keep="first", maintain_order=True)
        .sort("timestamp", maintain_order=True)
    )
    ids = pl.format("u{}", "user").alias("user_id"), pl.format("p{}", "item").alias("item_id")
    return log.select(*ids, "timestamp"), shop.items


def one(*source: str) -> None:
    """Fit on a folder's log, or on a shop of so many items and users, and print the figures as JSON."""
    from mecold import PrecomputedEncoder, Recommender
    from mecold.evaluation.dataset import Dataset
    from mecold.evaluation.ranking import PeakMemory

    if len(source) == 1:
        log, items = (Path(source[0]) / f"{name}.parquet" for name in ("interactions", "items"))
    else:
        log, items = shop_of(int(source[0]), int(source[1]), float(source[2]))
    data = Dataset.read(log, items)
    if len(source) == 1:
        vectors = data.vectors
    else:
        texts = list(dict.fromkeys(data.catalog.texts))
        of_text = dict(zip(texts, np.random.default_rng(0).normal(size=(len(texts), 384)), strict=True))
        vectors = np.stack([of_text[text] for text in data.catalog.texts]).astype(np.float32)
    recommender = Recommender(PrecomputedEncoder.of(data.catalog.texts, vectors), rng=0)
    with PeakMemory() as memory:
        start = perf_counter()
        recommender.fit_meta(log, items)
        seconds = perf_counter() - start
    size = {"items": data.catalog.size, "users": len(data.log), "rows": len(data.log.items)}
    print(json.dumps(size | {"seconds": seconds, "bytes": memory.peak}))


def main(data_dir: Path | None) -> None:
    print(machine() + "\n")
    print("| set | items | users | interactions | seconds | GiB |\n|---|---|---|---|---|---|")
    if data_dir:
        sources = {path.parent.name: [str(path.parent)] for path in sorted(data_dir.glob("*/interactions.parquet"))}
    else:
        sources = {f"generated {place}": [str(part) for part in size] for place, size in enumerate(SIZES, 1)}
    if not sources:
        raise SystemExit(f"No folder of {data_dir} holds an interactions.parquet.")
    for name, source in sources.items():
        call = [sys.executable, "-W", "ignore", __file__, "--one", *source]
        found = json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        print(
            f"| {name} | {found['items']:,} | {found['users']:,} | {found['rows']:,} | {found['seconds']:.0f} "
            f"| {found['bytes'] / 2**30:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(*sys.argv[2:])
    else:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
