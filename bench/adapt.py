"""How long `adapt_user` takes, by number of shots and size of the catalogue; and batches: the head, and gradient steps
against a torch.func MAML.

    python bench/adapt.py

The space is random, dim 192; adaptation reads rows of it, so only its shape matters. One thread for single users.
"""

import polars as pl
import torch
from clock import machine, medians_ms, random_space

from mecold import Catalog, PrecomputedEncoder, Recommender
from mecold.heads.inner import descend, gramian
from mecold.heads.preference import PreferenceHead
from mecold.model import Model
from mecold.space.shelf import Shelf
from mecold.data.histories import history, pad
from mecold.space.space import ItemTower, Layout

LAYOUT = Layout(("symmetric", "directed", "text", "new", "popularity"), (64, 64, 62, 1, 1), 16)


def recommender_of(items: int) -> Recommender:
    """A recommender over random vectors, put together from its parts: a fit would not change what adaptation costs."""
    head, space = PreferenceHead(LAYOUT).eval(), random_space(items, LAYOUT.dim)
    made = Recommender(PrecomputedEncoder.of(["x"], torch.ones(1, 62).numpy()))
    ids = pl.Series([f"item {row}" for row in range(items)])
    made._state = (
        Model(ItemTower(62, LAYOUT), head, "none", ""),
        Shelf.of(Catalog.of(ids, [""] * items), space, "auto"),
    )
    return made


def single(items: int) -> str:
    recommender = recommender_of(items)
    cells = []
    for shots in (1, 10, 100):
        rows = torch.randint(items, (shots,), generator=torch.Generator().manual_seed(1)).tolist()
        history = [f"item {row}" for row in rows]
        cells.append(f"{medians_ms({'it': lambda h=history: recommender.adapt_user(h)}, 400)['it']:.3f}")
    return f"| {items:,} | " + " | ".join(cells) + " |"


def functional_maml(
    item: torch.Tensor, gram: torch.Tensor, prior: torch.Tensor, rows: torch.Tensor, steps: int
) -> torch.Tensor:
    """The steps of `descend` the usual way: torch.func.grad of the inner loss, vmapped over users."""

    def adapt_one(start: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        def loss(head: torch.Tensor) -> torch.Tensor:
            fit = 0.5 * ((items @ head - 5.0) ** 2).sum() + 0.5 * head @ gram @ head
            return fit + 0.5 * ((head - start) ** 2).sum()

        head = start
        for _ in range(steps):
            head = head - 0.01 * torch.func.grad(loss)(head)
        return head

    return torch.func.vmap(adapt_one)(prior, item[rows])


@torch.no_grad()
def main() -> None:
    print(machine() + "\n")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    print("`adapt_user`, one thread: median ms\n| items | k = 1 | k = 10 | k = 100 |\n|---|---|---|---|")
    for items in (1_000, 100_000, 1_000_000):
        print(single(items))
    torch.set_num_threads(threads)
    users, shots, steps = 10_000, 10, 3
    space, head = random_space(100_000, LAYOUT.dim), PreferenceHead(LAYOUT).eval()
    rows = torch.randint(100_000, (users, shots), generator=torch.Generator().manual_seed(2))
    support, coefficients = pad([history(one) for one in rows.numpy()]), head.coefficients()
    start, gram = head(space, support, coefficients).vector, gramian(space.item[:10_000])
    labels = torch.full(rows.shape, 5.0)

    def steps_of_ours() -> torch.Tensor:
        items = space.item[rows]
        return descend(
            start, items, labels, support.mask, lr=0.01, steps=steps, l2=1.0, gram=gram, gram_weight=1.0
        )  # fmt: skip

    calls = {
        "head": lambda: head(space, support, coefficients),
        "steps": steps_of_ours,
        "torch.func": lambda: functional_maml(space.item, gram, start, rows, steps),
    }
    found = medians_ms(calls, 9)
    difference = (functional_maml(space.item, gram, start, rows, steps) - steps_of_ours()).abs().max().item()
    print(f"\n{users:,} users, {shots} shots, median ms: the preference head {found['head']:.0f};")
    print(f"{steps} gradient steps on a linear head (`adapt.descend`) {found['steps']:.0f}, as a torch.func MAML loop")
    print(
        f"{found['torch.func']:.0f}, ratio {found['torch.func'] / found['steps']:.2f}; largest difference {difference:.1e}"
    )


if __name__ == "__main__":
    main()
