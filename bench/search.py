"""How long adapt + recommend takes against a bare torch matmul + mask + top-k; and FAISS's flat index beside it.

    python bench/search.py

Random vectors, dim 192, k = 10, 10 items in the support. Medians of interleaved repeats.
"""

from collections.abc import Callable

import numpy as np
import torch
from clock import machine, medians_ms, random_space

from mecold.heads.preference import PreferenceHead
from mecold.space.index import ExactIndex, FaissIndex
from mecold.data.histories import history, pad
from mecold.space.space import Layout

LAYOUT = Layout(("symmetric", "directed", "text", "new", "popularity"), (64, 64, 62, 1, 1), 16)
K, SHOTS = 10, 10


@torch.inference_mode()
def measure(items: int, users: int, repeats: int) -> None:
    space = random_space(items, LAYOUT.dim)
    item = space.item
    head = PreferenceHead(LAYOUT).eval()
    coefficients = head.coefficients()
    rows = np.random.default_rng(0).integers(items, size=(users, SHOTS))
    histories = [history(one) for one in rows]
    dead = torch.zeros(items, dtype=torch.bool)
    query = head(space, pad(histories), coefficients)
    columns = torch.from_numpy(rows)

    def end_to_end() -> object:
        return ExactIndex().search(space, dead, head(space, pad(histories), coefficients), K, list(rows))

    def bare() -> object:
        step = max(1, (1 << 26) // items)  # the same memory limit
        found = []
        for start in range(0, users, step):
            scores = query.vector[start : start + step] @ item.T
            scores.scatter_(1, columns[start : start + step], -torch.inf)
            found.append(scores.topk(K, dim=1))
        return found

    calls: dict[str, Callable[[], object]] = {"mecold": end_to_end, "bare": bare}
    flat = FaissIndex.build("flat", item)
    calls["faiss"] = lambda: flat._built.search(query.vector.numpy(), K + SHOTS)
    found = medians_ms(calls, repeats)
    same = [sorted(r.tolist()) for r, _ in flat.search(space, dead, query, K, list(rows))]
    assert same == [sorted(r.tolist()) for r, _ in ExactIndex().search(space, dead, query, K, list(rows))]
    print(
        f"| {items:,} | {users} | {found['mecold']:.2f} | {found['bare']:.2f} | {found['mecold'] / found['bare']:.2f} | "
        f"{found['faiss']:.2f} |"
    )


def main() -> None:
    print(machine() + "\n")
    print("| items | users | adapt + recommend, ms | bare torch, ms | ratio | FAISS flat, search alone, ms |")
    print("|---|---|---|---|---|---|")
    for items in (100_000, 1_000_000):
        measure(items, 1, 41)
        measure(items, 256, 5)


if __name__ == "__main__":
    main()
