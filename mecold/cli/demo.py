"""The main job on a generated shop: fit, adapt three strangers, and hold the ranking against popularity.

The numbers are those of `mecold evaluate`: test users are never seen in the fit, and are ranked over the full catalogue.
"""

from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table

from mecold.cli.terminal import scores_table
from mecold.evaluation.dataset import Dataset
from mecold.evaluation.plan import SHOTS
from mecold.evaluation.protocol import split
from mecold.evaluation.report.records import Findings
from mecold.evaluation.run import evaluate
from mecold.evaluation.systems.base import Supports, Training
from mecold.recommender import Recommender
from mecold.shop import make_shop

_SHOWN = 5


def run_demo(console: Console, *, n_items: int = 2000, n_users: int = 3000, seed: int = 0) -> Findings:
    """Run the whole job and print what a reader wants to see; returns what the evaluation found."""
    shop = make_shop(n_items, n_users, rng=seed)
    dataset = Dataset.read(shop.interactions, shop.items, name="a generated shop")
    one = split(dataset, "user", seed)
    console.print(
        f"A generated shop: [b]{n_items:,}[/b] items, [b]{n_users:,}[/b] users, "
        f"[b]{shop.interactions.height:,}[/b] purchases; {len(one.test):,} users are kept out of everything below."
    )
    recommender = Recommender(rng=seed, progress=True)
    ids = dataset.catalog.ids

    def mecold(training: Training) -> Callable[[Supports], np.ndarray]:
        report = recommender.fit_meta(training.frame(), shop.items)
        console.print(f"Meta-trained in {report.seconds:.0f} s, best epoch {report.best_step}.\n")

        def scores(supports: Supports) -> np.ndarray:
            users = (recommender.adapt_user(ids.gather(rows).to_list()) for rows in supports)
            return np.stack([recommender.scores(user, ids.to_list()) for user in users])

        return scores

    found = evaluate([mecold, "popularity"], dataset, shots=SHOTS, seeds=(seed,)).found
    popular = ids.gather(np.argsort(-Training(one.train, dataset).counts, kind="stable")).to_list()
    tasks = {shots: one.tasks("test", shots) for shots in (1, 3, 10)}
    for place, (shots, some) in enumerate(tasks.items()):
        support, bought = (ids.gather(rows[place]).to_list() for rows in (some.supports, some.queries))
        console.print(_stranger(recommender, support, bought, shots, popular))
    console.print(scores_table(found, with_costs=False))
    return found


def _stranger(recommender: Recommender, support: list[str], bought: list[str], shots: int, popular: list[str]) -> Table:
    title = f"A stranger with {shots} purchase{'s' if shots > 1 else ''}"
    table = Table(title=title, title_justify="left", expand=True)
    for name in ("was given", "mecold recommends", "popularity recommends"):
        table.add_column(name, ratio=1, overflow="fold")
    columns: list[list[str]] = [
        support,
        [str(hit.item) for hit in recommender.recommend(recommender.adapt_user(support), k=_SHOWN)],
        [item for item in popular if item not in support][:_SHOWN],
    ]
    for row in range(max(map(len, columns))):
        cells = [column[row] if row < len(column) else None for column in columns]
        marks = [f"{row + 1}. " + ("[green]✓[/green] " if item in bought else "") for item in cells]
        titles = ["" if item is None else recommender.text_of(item).partition(". ")[0] for item in cells]
        table.add_row(*[mark + text if text else "" for mark, text in zip(marks, titles, strict=True)])
    table.caption = "✓: the stranger did buy it later"
    return table
