"""How long adapt + recommend takes against a bare torch matmul + mask + top-k; and FAISS's flat index beside it.

    python bench/search.py

Random vectors, dim 192, k = 10, 10 items in the support. Medians of interleaved repeats.
"""

from collections.abc import Callable

import numpy as np
import torch
from clock import head_of, machine, medians_ms, random_space

from mecold.data.histories import Histories
from mecold.space.approximate import FaissIndex
from mecold.space.index import ExactIndex, Hidden

K, SHOTS = 10, 10


@torch.inference_mode()
def measure(items: int, users: int, repeats: int) -> None:
    space = random_space(items)
    item, head = space.vectors(torch.arange(items)), head_of(space)
    coefficients = head.coefficients()
    rows = np.random.default_rng(0).integers(items, size=(users, SHOTS))
    hidden = Hidden.of(list(rows))
    dead = torch.zeros(items, dtype=torch.bool)

    def support() -> Histories:
        return Histories.padded(rows.flatten(), np.full(users, SHOTS))

    vectors = head.adapt(space, support(), coefficients)
    columns = torch.from_numpy(rows)

    def end_to_end() -> object:
        return ExactIndex().search(space, dead, head.adapt(space, support(), coefficients), K, hidden)

    def bare() -> object:
        step = max(1, (1 << 26) // items)  # the same memory limit
        found = []
        for start in range(0, users, step):
            scores = vectors.vector[start : start + step] @ item.T
            scores.scatter_(1, columns[start : start + step], -torch.inf)
            found.append(scores.topk(K, dim=1))
        return found

    calls: dict[str, Callable[[], object]] = {"mecold": end_to_end, "bare": bare}
    flat = FaissIndex.build("flat", item)
    calls["faiss"] = lambda: flat._built.search(vectors.vector.numpy(), K + SHOTS)
    found = medians_ms(calls, repeats)
    same, exact = (index.search(space, dead, vectors, K, hidden).rows for index in (flat, ExactIndex()))
    assert (np.sort(same) == np.sort(exact)).all()
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
