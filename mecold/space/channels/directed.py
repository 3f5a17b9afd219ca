"""The directed channel: a ridge regression from the faded last items of every prefix of a history to what follows.

Source: Choi et al. 2021 (SLIST, arXiv:2103.15991).
"""

from mecold.space.channel import Traits
from mecold.space.low_rank import RidgeInverse, balanced, low_rank, spread
from mecold.space.making import Maker, Material, Sides


def _sides(material: Material) -> Sides | None:
    config, device = material.config, material.counts.device
    if not config.directed_rank:
        return None
    past, follows = material.stats.steps(material.factored, config, device)
    P = RidgeInverse.of(past, config, material.draws)
    # nothing is ahead of itself, so that the diagonal of P past' ahead comes of the low part alone
    diagonal = -(P.low * (follows.T @ P.low)).sum(1)[:, None]
    found = low_rank(
        lambda Q: P @ (follows @ Q) - diagonal * Q, lambda Q: follows.T @ (P @ Q) - diagonal * Q,
        past.width, config.directed_rank, material.draws, device,
    )  # fmt: skip
    return Sides(*spread(balanced(found), material.factored, len(material.counts)))


DIRECTED = Maker("directed", Traits(start=2.5, tied=True, grows=True, agrees=True), _sides)
