"""Search in a fitted model: `python bench/search.py [MODEL INTERACTIONS] [--kinds auto,hnsw,...]`.

MODEL is a folder that `save` wrote, INTERACTIONS a parquet file of its log; without them a generated shop of 40,000 items with
random text vectors is fitted first. 256 users with their first ten items ask for ten more. For the exact search and for each
index of FAISS: seconds to build, bytes per item, how many of the exact ten come back, and milliseconds, for one user and per
user of 256. Everything but adaptation is in the times: what users have is left out, candidates are scored in full. The first
row is what torch needs for the bare product, mask and top-k.
"""

import argparse
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import polars as pl
import torch
from clock import commit_of, machine, medians_ms

from mecold import Catalog, PrecomputedEncoder, Recommender
from mecold.data.interactions import Interactions
from mecold.serving import adapt
from mecold.shop import make_shop
from mecold.space.approximate import FaissIndex
from mecold.space.channel import side_by_side
from mecold.space.faiss_library import faiss_library
from mecold.space.index import ExactIndex, Hidden, ItemIndex
from mecold.space.shelf import Shelf
from mecold.store import load_model

K, SHOTS, USERS = 10, 10, 256


def kinds_of(items: int, dim: int) -> list[str]:
    """One of each family, with as many cells as `"auto"` has."""
    cells = 1 << round(math.log2(4 * math.sqrt(items)))
    eights = -(-(dim + 1) // 32) * 4  # sub-vectors of eight numbers each
    families = ["Flat", "SQfp16", "SQ8", "SQ4", f"PQ{eights}x4fs"]
    return ["auto", *(f"IVF{cells},{one}" for one in families), "hnsw", "flat"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("interactions", type=Path, nargs="?")
    parser.add_argument("--kinds", help="Comma-separated, with + for the commas inside: auto,IVF4096+PQ84x4fs.")
    parser.add_argument("--rows", type=int, default=3_000_000, help="Rows of the log to look for users in.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        model, log = (args.model, args.interactions) if args.model else fitted(Path(place))
        measure(model, log, args.kinds, args.rows)


def fitted(place: Path) -> tuple[Path, Path]:
    """A model of a generated shop, and its log."""
    shop = make_shop(40_000, 20_000, rng=0)
    texts = list(dict.fromkeys(Catalog.read(shop.items).texts))
    vectors = np.random.default_rng(0).normal(size=(len(texts), 384)).astype(np.float32)
    recommender = Recommender(PrecomputedEncoder.of(texts, vectors), rng=0)
    recommender.fit_meta(shop.interactions, shop.items)
    recommender.save(place / "model")
    shop.interactions.write_parquet(place / "log.parquet")
    return place / "model", place / "log.parquet"


@torch.inference_mode()
def measure(model: Path, interactions: Path, kinds: str | None, most: int) -> None:
    """One table."""
    content = load_model(model, mapped=True)
    space, nothing = content.space, torch.zeros(len(content.space), dtype=torch.bool)
    log = Interactions.read(pl.read_parquet(interactions, n_rows=most), content.catalog, on_unknown="drop")
    long = np.random.default_rng(0).permutation(np.flatnonzero(log.lengths >= SHOTS))[:USERS]
    log = log.take(long)
    shelf = Shelf.of(content.catalog, space, "exact")
    users = adapt(content.model, shelf, log.histories(np.ones(len(log.items), np.float32), first=SHOTS))
    hidden = Hidden.of([own[:SHOTS] for own in log.split()])
    vectors = side_by_side({name: channel.item for name, channel in space.channels.items()})
    print(f"{machine()}, commit {commit_of()}; {len(space):,} items, {space.dim} numbers each, {len(long)} users\n")
    head = ("index", "build, s", "bytes per item", "of the exact ten", "one user, ms", "of 256, ms a user")
    print(f"| {' | '.join(head)} |\n{'|---' * len(head)}|")

    def bare(count: int) -> Callable[[], object]:
        def call() -> object:
            step, found = max(1, (1 << 26) // len(space)), []
            for start in range(0, count, step):
                some, own = (
                    users.vector[start : min(count, start + step)],
                    hidden.between(start, min(count, start + step)),
                )
                scores = some @ vectors.T
                scores[own.users, own.rows] = -torch.inf
                found.append(scores.topk(K, dim=1))
            return found

        return call

    def times(calls: dict[str, Callable[[], object]]) -> str:
        one, many = medians_ms({"one": calls["one"]}, 21)["one"], medians_ms({"many": calls["many"]}, 5)["many"]
        return f"{one:.2f} | {many / len(users):.3f}"

    def row(name: str, index: ItemIndex, seconds: float, size: float, exact: np.ndarray) -> None:
        found = index.search(space, nothing, users, K, hidden).rows
        recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(exact.tolist(), found.tolist(), strict=True)])
        one, own = users[:1], hidden.between(0, 1)
        shown = times(
            {
                "one": lambda: index.search(space, nothing, one, K, own),
                "many": lambda: index.search(space, nothing, users, K, hidden),
            }
        )
        print(f"| {name} | {seconds:.1f} | {size:,.0f} | {recall:.4f} | {shown} |", flush=True)

    print(f"| bare product, mask, top-k | | | | {times({'one': bare(1), 'many': bare(len(users))})} |")
    exact = ExactIndex().search(space, nothing, users, K, hidden).rows
    row("exact", ExactIndex(), 0.0, 0.0, exact)
    wanted = [kind.replace("+", ",") for kind in kinds.split(",")] if kinds else kinds_of(len(space), space.dim)
    for kind in wanted:
        start = perf_counter()
        index = FaissIndex.build(kind, vectors)
        seconds = perf_counter() - start
        row(kind, index, seconds, len(faiss_library().serialize_index(index._built)) / len(space), exact)


if __name__ == "__main__":
    main()
