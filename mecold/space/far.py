"""Times that are on another clock than the log's: milliseconds for seconds, days, a year that is not meant."""

import warnings
from datetime import UTC, datetime

import numpy as np
import torch
from jaxtyping import Float64

from mecold.errors import DataWarning
from mecold.space.clock import Clock
from mecold.space.space import ItemSpace

_POSITIONS = 10_000.0  # smaller numbers only say what came first; see `Interaction`
_UNITS = {"1,000": 1e3, "1,000,000": 1e6, "1,000,000,000": 1e9, "86,400": 86_400.0, "86,400,000": 86_400_000.0}


def tell_far(space: ItemSpace, times: Float64[np.ndarray, "..."] | None, stacklevel: int = 3) -> None:
    """Warn of times that lie far from the log's; see `told_far`."""
    if times is not None and (far := told_far(space, times.flatten())) is not None:
        warnings.warn(far, DataWarning, stacklevel=stacklevel)


def told_far(space: ItemSpace, times: Float64[np.ndarray, " rows"]) -> str | None:
    """What is wrong with times that lie far from the log's, in a sentence; None where nothing is.

    Args:
        space: knows the log's clock, if any channel of it reads one.
        times: of all rows, NaN where there is none.
    """
    clock = next((one.clock for one in space.channels.values() if one.clock is not None), None)
    known = times[~np.isnan(times)]
    if clock is None or not len(known) or (known.max() < _POSITIONS < clock.span[0]):
        return None
    far = clock.foreign(torch.from_numpy(known).to(clock.centres.device)).cpu().numpy()
    if not far.any():
        return None
    odd = known[far]
    return (
        f"{len(odd):,} of {len(known):,} times lie from {_shown(odd.min())} to {_shown(odd.max())}, those of the log of the fit "
        f"from {_shown(clock.span[0])} to {_shown(clock.span[1])}: what was popular then is not read. {_way_out(clock, odd)}"
    )


def _way_out(clock: Clock, odd: Float64[np.ndarray, " rows"]) -> str:
    """The factor that would make them meet, or what else to do."""
    for name, factor in _UNITS.items():
        for how, scaled in (("Divide", odd / factor), ("Multiply", odd * factor)):
            if not clock.foreign(torch.from_numpy(scaled).to(clock.centres.device)).any():
                return f"{how} them by {name}, and they meet."
    return "Pass times of the log's clock, or none; fit anew where the log is old."


def _shown(time: float) -> str:
    """A time, and the day that it is, should it be seconds."""
    day = f" ({datetime.fromtimestamp(time, UTC):%Y-%m-%d})" if 1e8 < time < 1e11 else ""
    return f"{time:.10g}{day}"
