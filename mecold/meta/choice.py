"""Which of several text vectors a recommender should be fitted on: each is tried whole, on items treated as new.

All are judged on the same items, which none of the encoders was trained on, and on users who are cross-fitted and held out as
in every fit; an encoder may have been trained on some of these users. The first, say the vectors of a frozen encoder, stays
unless another is clearly better.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float

from mecold.data.catalog import Catalog
from mecold.data.interactions import Interactions
from mecold.meta.config import MetaConfig
from mecold.meta.fit import fit
from mecold.report import Recorder

NEW, USERS = "cold/ndcg@10/after", "held_out/ndcg@10"
LEAST_GAIN = 0.02  # of nDCG@10 among items treated as new, relative to the first
MOST_LOSS = 0.005  # of nDCG@10 of held-out users, relative to the first


@dataclass(frozen=True)
class Choice:
    """What was chosen, and by what.

    Args:
        name: of the vectors to fit on.
        new_items: nDCG@10 among items treated as new, by name; nan where too few users tell.
        users: nDCG@10 of held-out users over the catalogue, by name.
    """

    name: str
    new_items: Mapping[str, float]
    users: Mapping[str, float]

    def told(self) -> str:
        """The choice in words."""
        if not np.isfinite(next(iter(self.new_items.values()))):
            return f"Texts: {self.name}. Too few users tell how items treated as new are ranked; the first was taken."
        marks = ", ".join(f"{name} {self.new_items[name]:.4f} / {self.users[name]:.4f}" for name in self.new_items)
        return f"Texts: {self.name}. nDCG@10 of items treated as new / of held-out users: {marks}."


def best_of(
    vectors: Mapping[str, Float[torch.Tensor, "items _"]],
    log: Interactions,
    catalog: Catalog,
    config: MetaConfig,
    *,
    taught: Bool[np.ndarray, " items"],
    seed: int,
) -> Choice:
    """Fit on each, and choose.

    Args:
        vectors: text vectors by name; the first are those to beat.
        log: histories.
        catalog: the items.
        config: settings.
        taught: True for items that any of the encoders was trained on.
        seed: of every fit.
    """
    new, users = {}, {}
    for name, own in vectors.items():
        recorder = Recorder()
        fit(
            log, catalog, own, config, taught=taught, rng=np.random.default_rng(seed),
            rehearsal=np.random.default_rng(seed), recorder=recorder,
        )  # fmt: skip
        new[name], users[name] = (
            max([value for _, value in recorder.report.curve(mark)], default=np.nan) for mark in (NEW, USERS)
        )
    return Choice(chosen(new, users), new, users)


def chosen(new: Mapping[str, float], users: Mapping[str, float]) -> str:
    """The best on new items of those that are clearly better than the first, and no worse for users; else the first."""
    first = next(iter(new))
    better = [
        name
        for name in new
        if new[name] >= new[first] * (1 + LEAST_GAIN) and not users[name] < users[first] * (1 - MOST_LOSS)
    ]
    return max(better, key=lambda name: new[name], default=first)
