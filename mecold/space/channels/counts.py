"""Newness, popularity and goals: nothing of the support is read, every user has the same number per number of shots."""

import torch

from mecold.space.channel import Channel, Traits
from mecold.space.channels.trend import SHRINK
from mecold.space.making import Maker, Material, Newcomers, Sides


def _nothing_is_new(material: Material) -> Sides:
    return Sides(None, torch.zeros_like(material.counts)[:, None])


def _new(channel: Channel, new: Newcomers) -> Sides:
    """An item without a lookalike is not recommended as new."""
    return Sides(None, new.known.to(channel.item.dtype))


def _popularity(material: Material) -> Sides:
    return Sides(None, material.basis.popularity(material.counts)[:, None])


def _guess(channel: Channel, new: Newcomers) -> Sides:
    """What the lookalikes have; its gain must not let a guess outbid a count. Without a lookalike: nobody wants it."""
    guess = torch.minimum(new.popularity, new.popularity * new.gain(channel.name))
    nobody = new.basis.popularity(torch.zeros_like(guess[:, 0]))[:, None]
    return Sides(None, torch.where(new.known, guess, nobody))


def _goals(material: Material) -> Sides | None:
    """How often an item is bought, say, by those who looked at it: log of the shrunk rate over the rate of all items."""
    if material.stats.goals is None:
        return None
    counts, goals = torch.from_numpy(material.stats.counts), torch.from_numpy(material.stats.goals)
    expected = counts * (goals.sum() / counts.sum().clamp(min=1))
    scale = torch.log1p(counts).std(correction=0).clamp(min=1e-6)
    found = torch.log((goals + SHRINK) / (expected + SHRINK)) / scale
    return Sides(None, found[:, None].to(material.counts.device))


NEW = Maker("new", Traits(reads="bonus"), _nothing_is_new, _new)
POPULARITY = Maker("popularity", Traits(reads="nothing", start=-1.0), _popularity, _guess, gained=False, counted=True)
GOALS = Maker("goals", Traits(reads="nothing", start=-1.0), _goals, counted=True)
