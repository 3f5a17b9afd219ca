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
from clock import machine

SIZES = ((1_000, 10_000), (4_000, 10_000), (16_000, 10_000), (4_000, 160_000), (10_000, 50_000), (100_000, 200_000))


def one(*source: str) -> None:
    """Fit on a folder's log, or on a shop of so many items and users, and print the figures as JSON."""
    from mecold import PrecomputedEncoder, Recommender
    from mecold.evaluation.dataset import Dataset
    from mecold.evaluation.ranking import PeakMemory
    from mecold.shop import make_shop

    if len(source) == 1:
        log, items = (Path(source[0]) / f"{name}.parquet" for name in ("interactions", "items"))
    else:
        shop = make_shop(int(source[0]), int(source[1]), rng=0)
        log, items = shop.interactions, shop.items
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
