"""The text channels: half-whitened texts, and beside them factors that new items are found by.

What texts say of a user does not fade. Neither does which new items a user will like: the head reads factors with a fade,
for what comes next, and so new items are also found by the leading columns of the first factors, read unfaded (`alike`).
"""

import torch

from mecold.space.channel import Channel, Traits
from mecold.space.making import Maker, Material, Newcomers, Sides

ALIKE = 64  # most columns of the first factors; chosen on EASE's


def _is_factor(channel: Channel) -> bool:
    """Channels in which items can agree and whose say fades are factors, fitted or a host's."""
    return channel.traits.agrees and channel.traits.fades


def _text(material: Material) -> Sides:
    return Sides(material.text, material.text)


def _own_text(_: Channel, new: Newcomers) -> Sides:
    return Sides(new.text, new.text)


def _alike(material: Material) -> Sides | None:
    first = next((c.support for c in material.made.values() if _is_factor(c)), None)
    if first is None:
        return None
    support = first[:, :ALIKE].contiguous()  # sums of rows are fast over whole memory alone
    return Sides(support, torch.zeros_like(support))


def _of_first_factors(channel: Channel, new: Newcomers) -> Sides:
    first = next(new.made[name] for name, c in new.channels.items() if _is_factor(c))
    return Sides(None if first.support is None else first.support[:, : channel.width], first.item[:, : channel.width])


TEXT = Maker("text", Traits(start=0.5, fades=False, agrees=True, textual=True), _text, _own_text)
ALIKE_FACTORS = Maker("alike", Traits(fades=False, scaled_as="text"), _alike, _of_first_factors)
