"""How a fit grows with items and users, on generated shops with random text vectors: `python bench/growth.py`.

One fit per size in a process of its own; seconds, and how far resident memory rose. Quality is not looked at.
"""

import json
import subprocess
import sys
from time import perf_counter

import numpy as np
from clock import machine

SIZES = ((1_000, 10_000), (4_000, 10_000), (16_000, 10_000), (64_000, 10_000), (4_000, 40_000), (4_000, 160_000))


def one(items: int, users: int) -> None:
    """Fit, and print the figures as JSON."""
    from mecold import Catalog, PrecomputedEncoder, Recommender
    from mecold.evaluation.ranking import PeakMemory
    from mecold.shop import make_shop

    shop = make_shop(items, users, rng=0)
    texts = list(dict.fromkeys(Catalog.read(shop.items).texts))
    vectors = np.random.default_rng(0).normal(size=(len(texts), 384)).astype(np.float32)
    recommender = Recommender(PrecomputedEncoder.of(texts, vectors), rng=0)
    with PeakMemory() as memory:
        start = perf_counter()
        recommender.fit_meta(shop.interactions, shop.items)
        seconds = perf_counter() - start
    print(json.dumps({"rows": shop.interactions.height, "seconds": seconds, "bytes": memory.peak}))


def main() -> None:
    print(machine() + "\n")
    print("| items | users | interactions | seconds | GiB |\n|---|---|---|---|---|")
    for items, users in SIZES:
        call = [sys.executable, "-W", "ignore", __file__, str(items), str(users)]
        found = json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        print(
            f"| {items:,} | {users:,} | {found['rows']:,} | {found['seconds']:.0f} | {found['bytes'] / 2**30:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        one(int(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
