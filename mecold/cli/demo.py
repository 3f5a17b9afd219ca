"""The main job on a generated shop: fit, adapt three strangers, and hold the ranking against popularity.

Held-out users are never seen in the fit; they are ranked over the full catalogue, support removed, as in deployment.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from rich.console import Console
from rich.table import Table

from mecold.math.metrics import ndcg
from mecold.recommender import Recommender
from mecold.shop import Shop, make_shop
from mecold.types import ItemId

SHOTS = (0, 1, 3, 5, 10)
QUERY = 10


@dataclass(frozen=True)
class Score:
    """nDCG@10 at one number of shots, over the held-out users that are long enough."""

    shots: int
    users: int
    mecold: float
    popularity: float


def run_demo(console: Console, *, n_items: int = 2000, n_users: int = 3000, seed: int = 0) -> list[Score]:
    """Run the whole job and print what a reader wants to see; returns the table's numbers."""
    shop = make_shop(n_items, n_users, rng=seed)
    train, strangers = split_users(shop.interactions, share=0.2)
    console.print(
        f"A generated shop: [b]{n_items:,}[/b] items, [b]{n_users:,}[/b] users, "
        f"[b]{shop.interactions.height:,}[/b] purchases; {len(strangers):,} users are kept out of everything below."
    )
    recommender = Recommender(rng=seed, progress=True)
    report = recommender.fit_meta(train, shop.items)
    console.print(f"Meta-trained in {report.seconds:.0f} s, best epoch {report.best_step}.\n")
    popular = most_popular(train)
    long_enough = [history for history in strangers if len(history) > max(SHOTS)]
    for history, shots in zip(long_enough, (1, 3, 10), strict=False):
        console.print(_stranger(recommender, shop, history, shots, popular))
    scores = [score(recommender, strangers, popular, shots) for shots in SHOTS]
    console.print(_table(scores))
    return scores


def split_users(log: pl.DataFrame, share: float) -> tuple[pl.DataFrame, list[list[ItemId]]]:
    """The log without its last users, and those users' histories, oldest item first."""
    users = log["user_id"].unique().sort()
    held_out = users.tail(int(len(users) * share)).implode()
    aside = log.filter(pl.col("user_id").is_in(held_out))
    histories = aside.group_by("user_id", maintain_order=True).agg("item_id")["item_id"].to_list()
    return log.filter(~pl.col("user_id").is_in(held_out)), histories


def most_popular(log: pl.DataFrame) -> list[ItemId]:
    """Items by number of users, ties by id."""
    counts = log.group_by("item_id").agg(pl.col("user_id").n_unique().alias("users"))
    ranked: list[ItemId] = counts.sort(["users", "item_id"], descending=[True, False])["item_id"].to_list()
    return ranked


def score(
    recommender: Recommender, histories: Sequence[Sequence[ItemId]], popular: Sequence[ItemId], shots: int
) -> Score:
    """nDCG@10 of the next items after the first `shots`, over users that have any, for mecold and for popularity."""
    tested = [history for history in histories if len(history) > shots]
    ours, theirs = [], []
    for history in tested:
        support, future = history[:shots], history[shots : shots + QUERY]
        ours.append([hit.item in future for hit in recommender.recommend(recommender.adapt_user(support), k=10)])
        theirs.append([item in future for item in [item for item in popular if item not in support][:10]])
    sizes = torch.tensor([min(QUERY, len(history) - shots) for history in tested])
    values = [float(ndcg(torch.tensor(hit), sizes).mean()) for hit in (ours, theirs)]
    return Score(shots, len(tested), *values)


def _stranger(
    recommender: Recommender, shop: Shop, history: Sequence[ItemId], shots: int, popular: Sequence[ItemId]
) -> Table:
    title = dict(zip(shop.items["item_id"], shop.items["title"], strict=True))
    support = history[:shots]
    found = recommender.recommend(recommender.adapt_user(support), k=5)
    table = Table(
        title=f"A stranger with {shots} purchase{'s' if shots > 1 else ''}", title_justify="left", expand=True
    )
    for name in ("was given", "mecold recommends", "popularity recommends"):
        table.add_column(name, ratio=1, overflow="fold")
    bought = set(history[shots:])
    columns = [
        list(support),
        [hit.item for hit in found],
        [item for item in popular if item not in support][:5],
    ]
    for row in range(max(map(len, columns))):
        cells = [column[row] if row < len(column) else None for column in columns]
        marks = [f"{row + 1}. " + ("[green]✓[/green] " if item in bought else "") for item in cells]
        table.add_row(*["" if i is None else mark + title[i] for i, mark in zip(cells, marks, strict=True)])
    table.caption = "✓: the stranger did buy it later"
    return table


def _table(scores: Sequence[Score]) -> Table:
    table = Table(title="nDCG@10 of held-out users, full catalogue", title_justify="left")
    for name in ("shots", "users", "mecold", "popularity", "ratio"):
        table.add_column(name, justify="right")
    for one in scores:
        ratio = one.mecold / one.popularity if one.popularity else np.inf
        table.add_row(str(one.shots), f"{one.users:,}", f"{one.mecold:.3f}", f"{one.popularity:.3f}", f"{ratio:.2f}")
    return table
