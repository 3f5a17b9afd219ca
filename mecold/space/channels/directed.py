"""The directed channel: a ridge regression from the faded last items of every prefix of a history to what follows.

Source: Choi et al. 2021 (SLIST, arXiv:2103.15991).
"""

from mecold.space.channel import Traits
from mecold.space.low_rank import balanced, dense, inverse, low_rank, spread
from mecold.space.making import Maker, Material, Sides


def _sides(material: Material) -> Sides | None:
    stats, config = material.stats, material.config
    if not config.directed_rank or stats.past is None or stats.ahead is None:
        return None
    P = inverse(dense(stats.past, material.counts.device), config.l2)
    ahead = dense(stats.ahead, material.counts.device)
    diagonal = (P * ahead.T).sum(1)[:, None]
    found = low_rank(
        lambda Q: P @ (ahead @ Q) - diagonal * Q, lambda Q: ahead.T @ (P @ Q) - diagonal * Q, len(P),
        config.directed_rank, material.draws, P.device,
    )  # fmt: skip
    return Sides(*spread(balanced(found), material.factored, len(material.counts)))


DIRECTED = Maker("directed", Traits(start=2.5, tied=True, grows=True, agrees=True), _sides)
