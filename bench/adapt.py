"""How long `adapt_user` takes, by number of shots and size of the catalogue; and batches: the head, and gradient steps
against a torch.func MAML.

    python bench/adapt.py

The model of single users and batches is a real one, fitted with the defaults on a generated shop of 1,000 items (or 2,000, for
batches) with random text vectors, width 658; the larger catalogues repeat its items, since only their number matters. One thread.
"""

import numpy as np
import polars as pl
import torch
from clock import head_of, machine, medians_ms, random_space

from mecold import Catalog, PrecomputedEncoder, Recommender
from mecold.data.histories import Histories
from mecold.heads.inner import descend, gramian
from mecold.shop import make_shop
from mecold.space.shelf import Shelf


def fitted(items: int, users: int = 2_000) -> tuple[Recommender, pl.DataFrame]:
    """A model with the defaults, and its log."""
    shop = make_shop(items, users, rng=0)
    texts = list(dict.fromkeys(Catalog.read(shop.items).texts))
    vectors = np.random.default_rng(0).normal(size=(len(texts), 384)).astype(np.float32)
    made = Recommender(PrecomputedEncoder.of([*texts, "a new one"], np.concatenate([vectors, vectors[:1]])), rng=0)
    made.fit_meta(shop.interactions, shop.items)
    return made, shop.interactions


def enlarge(made: Recommender, items: int) -> None:
    """Repeat the items of a fitted model up to so many."""
    model, shelf = made._state  # type: ignore[misc]
    ids = pl.Series([f"p{row}" for row in range(items)])
    space = shelf.space.take(torch.arange(items) % len(shelf.space))
    made._state = model, Shelf.of(Catalog.of(ids, [""] * items), space, "auto")


def single(made: Recommender, items: int) -> str:
    enlarge(made, items)
    history = [f"p{row}" for row in torch.randperm(1_000, generator=torch.Generator().manual_seed(1))[:10].tolist()]
    user, count = made.adapt_user(history), iter(range(10**9))

    def add() -> None:
        made.add_items(pl.DataFrame({"item_id": [f"new {next(count)}"], "title": ["a new one"]}))

    add()
    repeats = 400 if items <= 100_000 else 40
    calls = {
        "adapt_user": lambda: made.adapt_user(history), "recommend": lambda: made.recommend(user),
        "scores of 10": lambda: made.scores(user, history),
    }  # fmt: skip
    found = medians_ms(calls, repeats) | medians_ms({"add_items": add}, 20)
    return f"| {items:,} | " + " | ".join(f"{ms:.3f}" for ms in found.values()) + " |"


def batch_rate() -> float:
    """Users per second of `recommend_batch`, one thread, 2,000 items."""
    made, log = fitted(2_000, 10_000)
    users = log["user_id"].n_unique()
    return users / medians_ms({"batch": lambda: made.recommend_batch(log, k=10)}, 5)["batch"] * 1e3


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
    made, _ = fitted(1_000)
    print("One thread, support of 10: median ms\n| items | adapt_user | recommend | scores of 10 | add_items of one |")
    print("|---|---|---|---|---|")
    for items in (1_000, 100_000, 1_000_000):
        print(single(made, items), flush=True)
    print(f"`recommend_batch`, 2,000 items, 10,000 users, one thread: {batch_rate():,.0f} users/s")
    torch.set_num_threads(threads)
    users, shots, steps = 10_000, 10, 3
    space = random_space(100_000)
    head = head_of(space)
    rows = torch.randint(100_000, (users, shots), generator=torch.Generator().manual_seed(2))
    support = Histories.padded(rows.numpy().flatten(), np.full(users, shots))
    coefficients = head.coefficients()
    item = space.vectors(torch.arange(100_000))
    start, gram = head.adapt(space, support, coefficients).vector, gramian(item[:10_000])
    labels = torch.full(rows.shape, 5.0)

    def steps_of_ours() -> torch.Tensor:
        items = item[rows]
        return descend(
            start, items, labels, support.mask, lr=0.01, steps=steps, l2=1.0, gram=gram, gram_weight=1.0
        )  # fmt: skip

    calls = {
        "head": lambda: head.adapt(space, support, coefficients),
        "steps": steps_of_ours,
        "torch.func": lambda: functional_maml(item, gram, start, rows, steps),
    }
    found = medians_ms(calls, 9)
    difference = (functional_maml(item, gram, start, rows, steps) - steps_of_ours()).abs().max().item()
    print(f"\n{users:,} users, {shots} shots, median ms: the preference head {found['head']:.0f};")
    print(
        f"{steps} gradient steps on a linear head (`heads.inner.descend`) {found['steps']:.0f}, as a torch.func MAML loop"
    )
    print(
        f"{found['torch.func']:.0f}, ratio {found['torch.func'] / found['steps']:.2f}; largest difference {difference:.1e}"
    )


if __name__ == "__main__":
    main()
