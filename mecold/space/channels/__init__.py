"""One file a channel: what a log and the texts say, as sides of items. This list is their order in an item vector."""

from mecold.space.channels.counts import GOALS, NEW, POPULARITY
from mecold.space.channels.directed import DIRECTED
from mecold.space.channels.groups import GROUPS
from mecold.space.channels.host import HOST
from mecold.space.channels.symmetric import SYMMETRIC
from mecold.space.channels.text import ALIKE_FACTORS, TEXT
from mecold.space.channels.trend import TREND
from mecold.space.making import Maker

MAKERS: dict[str, Maker] = {
    maker.name: maker
    for maker in (HOST, SYMMETRIC, DIRECTED, TREND, TEXT, ALIKE_FACTORS, GROUPS, GOALS, NEW, POPULARITY)
}
"""Makers of channels by name."""
