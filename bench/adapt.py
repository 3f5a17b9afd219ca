"""How long `adapt_user` takes, by number of shots and size of the catalogue; a batch against a torch.func MAML.

    python bench/adapt.py

The space is random, dim 192; adaptation reads rows of it, so only its shape matters. One thread for single users.
"""

import copy

import polars as pl
import torch
from clock import machine, medians_ms, random_space

from mecold import Catalog, PrecomputedEncoder, Recommender
from mecold.adapt import descend
from mecold.head import HeadConfig, Inner, PreferenceHead
from mecold.model import Model
from mecold.shelf import Shelf
from mecold.support import history, pad
from mecold.tower import ItemSpace, ItemTower, Layout

LAYOUT = Layout(("symmetric", "directed", "text", "new", "popularity"), (64, 64, 62, 1, 1))


def recommender_of(items: int, inner: Inner) -> Recommender:
    """A recommender over random vectors, put together from its parts: a fit would not change what adaptation costs."""
    head, space = PreferenceHead(LAYOUT, HeadConfig(inner=inner)).eval(), random_space(items, LAYOUT.dim)
    made = Recommender(PrecomputedEncoder.of(["x"], torch.ones(1, 62).numpy()))
    ids = pl.Series([f"item {row}" for row in range(items)])
    made._state = (
        Model(ItemTower(62, 62, 5), head, "none", space.gram, ""),
        Shelf.of(Catalog.of(ids, [""] * items), space, "auto"),
    )
    return made


def single(items: int, inner: Inner) -> str:
    recommender = recommender_of(items, inner)
    cells = []
    for shots in (1, 10, 100):
        rows = torch.randint(items, (shots,), generator=torch.Generator().manual_seed(1)).tolist()
        history = [f"item {row}" for row in rows]
        cells.append(f"{medians_ms({'it': lambda h=history: recommender.adapt_user(h)}, 400)['it']:.3f}")
    return f"| {items:,} | " + " | ".join(cells) + " |"


def functional_maml(space: ItemSpace, prior: torch.Tensor, rows: torch.Tensor, steps: int) -> torch.Tensor:
    """The same inner steps the usual way: torch.func.grad of the inner loss, vmapped over users."""

    def adapt_one(start: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        def loss(head: torch.Tensor) -> torch.Tensor:
            fit = 0.5 * ((items @ head - 5.0) ** 2).sum() + 0.5 * head @ space.gram @ head
            return fit + 0.5 * ((head - start) ** 2).sum()

        head = start
        for _ in range(steps):
            head = head - 0.01 * torch.func.grad(loss)(head)
        return head

    return torch.func.vmap(adapt_one)(prior, space.item[rows])


@torch.inference_mode()
def main() -> None:
    print(machine() + "\n")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for inner in ("gradient", "closed_form"):
        head = PreferenceHead(LAYOUT, HeadConfig(inner=inner)).eval()
        print(
            f"`adapt_user`, one thread, inner={inner}: median ms\n| items | k = 1 | k = 10 | k = 100 |\n|---|---|---|---|"
        )
        for items in (1_000, 100_000, 1_000_000):
            print(single(items, inner))
        print()
    torch.set_num_threads(threads)
    users, shots, steps = 10_000, 10, 3
    space, head = random_space(100_000, LAYOUT.dim), PreferenceHead(LAYOUT, HeadConfig(steps=3)).eval()
    rows = torch.randint(100_000, (users, shots), generator=torch.Generator().manual_seed(2))
    support, coefficients = pad([history(one) for one in rows.numpy()]), head.coefficients()
    prior = head.stages(space, support, coefficients)[0]
    with torch.inference_mode(mode=False):
        plain, start = copy.deepcopy(space), prior.clone()
        labels = torch.full(rows.shape, 5.0)
        calls = {
            "mecold": lambda: head(space, support, coefficients),
            "steps": lambda: descend(
                start,
                plain.item[rows],
                labels,
                support.mask,
                lr=0.01,
                steps=steps,
                l2=1.0,
                gram=plain.gram,
                gram_weight=1.0,
            ),
            "torch.func": lambda: functional_maml(plain, start, rows, steps),
        }
        found = medians_ms(calls, 9)
        theirs = functional_maml(plain, start, rows, steps)
        difference = (theirs - head.stages(plain, support, head.coefficients())[1]).abs().max().item()
    print(f"{users:,} users, {shots} shots, {steps} steps, median ms: torch.func MAML loop {found['torch.func']:.0f};")
    print(f"mecold's inner loop {found['steps']:.0f}, ratio {found['torch.func'] / found['steps']:.2f};")
    print(f"mecold's whole head, prior and gains included, {found['mecold']:.0f}")
    print(f"(largest difference between the adapted heads {difference:.1e})")


if __name__ == "__main__":
    main()
