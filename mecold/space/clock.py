"""How a time is read: what a user who is there at a time takes of each bin of a log's time."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

REACH = 10.0
"""How many lengths of a log behind its end a time may lie and still be on its clock."""


@dataclass(frozen=True)
class Clock:
    """What a channel of times is read by.

    Args:
        centres: middle of each bin of time, in the log's unit.
        persistence: how much of a trend is left one bin later, from 0 to 1.
    """

    centres: Float64[Tensor, " bins"]
    persistence: float

    @property
    def span(self) -> tuple[float, float]:
        """Where the log's times begin and end, to half a bin."""
        first, second, before, last = (float(self.centres[at]) for at in (0, 1, -2, -1))
        return first - (second - first) / 2, last + (last - before) / 2

    def foreign(self, time: Float[Tensor, " users"]) -> Bool[Tensor, " users"]:
        """True for times that are known and so far from the log that they say nothing of it, or are of another clock."""
        first, last = self.span
        return (time < first - (last - first)) | (time > last + REACH * (last - first))

    def to(self, device: torch.device) -> "Clock":
        """The same clock on another device."""
        return Clock(self.centres.to(device), self.persistence)

    def reading(self, time: Float[Tensor, " users"]) -> Float[Tensor, "users bins"]:
        """How much of each bin a user at a time reads: linear between the two nearest centres.

        Behind the last centre it is the last bin, times `persistence` for every bin's width that has passed (an
        autoregressive forecast). A time that is not known (NaN), or lies before the log began (so that it is no time of
        this clock), or far behind its end, reads nothing.
        """
        if bool(torch.isnan(time).all()):  # as for one user without times: nothing to read, at no cost
            return torch.zeros(len(time), len(self.centres), device=time.device)
        first = self.centres[0] - (self.centres[1] - self.centres[0])
        known = (time >= first) & ~self.foreign(time)
        at = torch.where(known, time, self.centres[0]).clamp(float(self.centres[0]), float(self.centres[-1]))
        upper = torch.searchsorted(self.centres, at).clamp(1, len(self.centres) - 1)
        share = (at - self.centres[upper - 1]) / (self.centres[upper] - self.centres[upper - 1])
        table = torch.zeros(len(time), len(self.centres), dtype=self.centres.dtype, device=self.centres.device)
        rows = torch.arange(len(time), device=self.centres.device)
        table[rows, upper - 1], table[rows, upper] = 1 - share, share
        behind = torch.where(known, (time - self.centres[-1]) / (self.centres[-1] - self.centres[-2]), 0.0).clamp(min=0)
        return (table * (known * self.persistence**behind)[:, None]).float()
