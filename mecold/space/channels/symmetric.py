"""The symmetric channel: EASE, a ridge regression from a user's other items to each item, cut to low rank.

Source: Steck 2019, arXiv:1905.03375.
"""

from mecold.math.sparse import Sparse
from mecold.space.channel import Traits
from mecold.space.low_rank import RidgeInverse, balanced, low_rank, spread
from mecold.space.making import Maker, Material, Sides


def _sides(material: Material) -> Sides | None:
    config, device = material.config, material.counts.device
    if not config.symmetric_rank or material.given is not None:
        return None
    visits = Sparse.of(material.stats.visits(material.factored), device)
    P = RidgeInverse.of(visits, config, material.draws)
    scale = (1 / P.diagonal)[:, None]
    found = low_rank(
        lambda Q: Q - P @ (scale * Q), lambda Q: Q - scale * (P @ Q), visits.width, config.symmetric_rank, material.draws,
        device,
    )  # fmt: skip
    return Sides(*spread(balanced(found), material.factored, len(material.counts)))


SYMMETRIC = Maker("symmetric", Traits(start=2.5, tied=True, grows=True, agrees=True), _sides)
