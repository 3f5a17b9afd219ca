"""Batch jobs: users per second against the bare product and against implicit, growth, and memory.

    python bench/batch.py [speed] [growth] [memory]

Models are fitted on generated shops with random text vectors, 384 wide, and saved; histories are ten rows per user, scattered
over parquet files. Both are kept in a temporary folder for the next time. A job is what `mecold batch` does, from files to files,
model loaded and all. Beside it, on the same users, with as many threads, and in turn: the product of ready user vectors with all
items, mask and top k; and implicit's `recommend(recalculate_user=True)` with factors as wide. Medians.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import polars as pl
import scipy.sparse as sp
import torch
from clock import machine, medians_ms
from implicit.als import AlternatingLeastSquares

from mecold import MetaConfig, PrecomputedEncoder, Recommender
from mecold.data.catalog import Catalog
from mecold.data.histories import Histories
from mecold.jobs import Job, run
from mecold.jobs.run import Hear
from mecold.meta.config import TrainConfig
from mecold.serving import adapt
from mecold.shop import make_shop

SHOTS, FILES = 10, 4
ASKED = 4_000  # users that implicit is asked for
SMALL, LARGE = 2_000, 100_000


def model_of(items: int, folder: Path) -> Path:
    """A recommender of so many items, fitted and saved; once."""
    target = folder / f"model-{items}"
    if not target.exists():
        shop = make_shop(items, 20_000, rng=0)
        texts = list(dict.fromkeys(Catalog.read(shop.items).texts))
        vectors = np.random.default_rng(0).normal(size=(len(texts), 384)).astype(np.float32)
        encoder = PrecomputedEncoder.of(texts, vectors)
        start = perf_counter()
        brief = MetaConfig(training=TrainConfig(epochs=2, calibrate=False))  # speed depends on shapes, not on skill
        model = Recommender(encoder, rng=0, config=brief if items > SMALL else None)
        model.fit_meta(shop.interactions, shop.items, ratings=False)
        model.save(target)
        print(f"Fitted {items:,} items in {perf_counter() - start:.0f} s.\n", flush=True)
    return target


def histories_of(ids: list[str], users: int, folder: Path) -> Path:
    """So many users with ten items each, their rows scattered over the files."""
    target = folder / f"histories-{len(ids)}-{users}"
    if target.exists():
        return target
    target.mkdir()
    rng = np.random.default_rng(users)
    names = pl.Series("item_id", ids)
    step = min(users, 500_000)
    for start in range(0, users, step):
        rows = (len(ids) * rng.random((step, SHOTS)) ** 3).astype(np.int64)
        table = pl.DataFrame(
            {"user_id": np.repeat(np.arange(start, start + step), SHOTS), "item_id": names.gather(rows.ravel())}
        ).with_columns(timestamp=pl.Series(rng.permutation(step * SHOTS)))
        mixed = table.sort("timestamp")
        for at in range(FILES):
            mixed[at::FILES].write_parquet(target / f"{start:08d}-{at}.parquet")
    return target


def job(model: Path, histories: Path, folder: Path, k: int = 10, hear: Hear | None = None) -> None:
    """A job, whose lists are thrown away."""
    with fresh(folder) as out:
        run(Job(str(model), str(histories), str(out), k=k), hear=hear)


@contextmanager
def fresh(folder: Path) -> Iterator[Path]:
    """A folder that is not there yet, and afterwards is not any more."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        yield Path(place) / "out"


def speed(folder: Path) -> None:
    """Users per second, and of what else could be done."""
    print(
        "| items | columns | users | mecold, users/s | bare product, users/s | implicit, users/s | of bare | of implicit |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for items, users, repeats in ((SMALL, 100_000, 3), (LARGE, 10_000, 3)):
        model = model_of(items, folder)
        mine = Recommender.load(model)
        histories = histories_of(list(mine.item_ids()), users, folder)
        calls, width = rivals(mine, histories)
        calls["mecold"] = partial(job, model, histories, folder)
        asked = {name: min(users, ASKED) if name == "implicit" else users for name in calls}
        rate = {name: asked[name] / (ms / 1e3) for name, ms in medians_ms(calls, repeats).items()}
        print(
            f"| {items:,} | {width} | {users:,} | {rate['mecold']:,.0f} | {rate['bare']:,.0f} | {rate['implicit']:,.0f} | "
            f"{rate['mecold'] / rate['bare']:.2f} | {rate['mecold'] / rate['implicit']:.2f} |",
            flush=True,
        )
    print()


def rivals(mine: Recommender, histories: Path, k: int = 10) -> tuple[dict[str, Callable[[], object]], int]:
    """The bare product of ready vectors, and implicit with factors as wide; both of the same users."""
    model, shelf = mine._ready()
    log = pl.read_parquet(histories / "*.parquet").sort("user_id", "timestamp")
    rows = shelf.catalog.find(log["item_id"], "histories").to_numpy().reshape(-1, SHOTS)
    users = len(rows)
    support = Histories.padded(rows.ravel(), np.full(users, SHOTS))
    with torch.inference_mode():
        item = shelf.space.vectors(torch.arange(len(shelf.space)))
        vectors = torch.cat(
            [adapt(model, shelf, support.take(some)).vector for some in torch.arange(users).split(4096)]
        )
    seen, step = torch.tensor(rows), max(1, (1 << 26) // len(item))

    @torch.inference_mode()
    def bare() -> None:
        for start in range(0, users, step):
            scores = vectors[start : start + step] @ item.T
            scores.scatter_(1, seen[start : start + step], -torch.inf)
            scores.topk(k, dim=1)

    matrix = sp.csr_matrix(
        (np.ones(rows.size, np.float32), rows.ravel(), np.arange(0, rows.size + 1, SHOTS)), (users, len(item))
    )
    matrix.sum_duplicates()
    als = AlternatingLeastSquares(
        factors=item.shape[1], iterations=1, num_threads=torch.get_num_threads(), random_state=0
    )
    als.fit(matrix[:2000], show_progress=False)
    some = np.arange(min(users, ASKED))
    return {
        "bare": bare,
        "implicit": lambda: als.recommend(some, matrix[some], N=k, recalculate_user=True),
    }, item.shape[1]


def growth(folder: Path) -> None:
    """How a job grows with users and with k."""
    print("| items | users | k | seconds | users/s | first part after, s |\n|---|---|---|---|---|---|")
    model = model_of(SMALL, folder)
    ids = list(Recommender.load(model).item_ids())
    for users, k in ((25_000, 10), (50_000, 10), (100_000, 10), (200_000, 10), (100_000, 50), (100_000, 200)):
        histories = histories_of(ids, users, folder)
        found: list[tuple[float, float]] = []
        for _ in range(3):
            begin, first = perf_counter(), []

            def hear(what: dict[str, object], begin: float = begin, first: list[float] = first) -> None:
                if what["event"] == "part" and not first:
                    first.append(perf_counter() - begin)

            job(model, histories, folder, k, hear)
            found.append((perf_counter() - begin, first[0]))
        seconds, first_part = np.median(found, axis=0)
        print(
            f"| {SMALL:,} | {users:,} | {k} | {seconds:.1f} | {users / seconds:,.0f} | {first_part:.1f} |", flush=True
        )
    print()


def memory(folder: Path) -> None:
    """Most resident memory of a job's process."""
    print("| users | rows | seconds | peak, MiB |\n|---|---|---|---|")
    model = model_of(SMALL, folder)
    ids = list(Recommender.load(model).item_ids())
    for users in (1_000_000, 10_000_000):
        histories = histories_of(ids, users, folder)
        call = [sys.executable, "-W", "ignore", __file__, "--one", str(model), str(histories), str(folder)]
        found = json.loads(subprocess.run(call, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        print(f"| {users:,} | {users * SHOTS:,} | {found['seconds']:.0f} | {found['peak'] / 2**10:,.0f} |", flush=True)
    print()


def one(model: str, histories: str, folder: str) -> None:
    """A job in this process: seconds, and KiB."""
    start = perf_counter()
    job(Path(model), Path(histories), Path(folder))
    status = Path("/proc/self/status").read_text()  # getrusage would count the process that started this one
    peak = int(status.partition("VmHWM:")[2].split()[0])
    print(json.dumps({"seconds": perf_counter() - start, "peak": peak}))


def main(parts: list[str]) -> None:
    known = {"speed": speed, "growth": growth, "memory": memory}
    if odd := [part for part in parts if part not in known]:
        raise SystemExit(f"No part {odd}; there are {list(known)}.")
    print(machine() + "\n")
    folder = Path(tempfile.gettempdir()) / "mecold-batch"
    folder.mkdir(exist_ok=True)
    for part in parts or known:
        known[part](folder)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(*sys.argv[2:])
    else:
        main(sys.argv[1:])
