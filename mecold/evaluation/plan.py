"""What will be evaluated and how, checked before any work is done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mecold.devices import device_of
from mecold.errors import InvalidDataError, few
from mecold.evaluation.dataset import Dataset
from mecold.evaluation.measures import METRICS, Metric
from mecold.evaluation.protocol import Protocol, Split, split

SHOTS = (0, 1, 3, 5, 10)
SEEDS = (0, 1, 2)
LEAST_DEPTH = 20  # the slices look at the first 20 ranks


@dataclass(frozen=True)
class Plan:
    """A checked evaluation, ready to run.

    Args:
        dataset: the data.
        protocol: the split.
        shots: numbers of shots, ascending.
        seeds: of the split and of the systems.
        metrics: names; the first is the headline.
        tune: choose settings out of each baseline's grid on validation users.
        device: where systems that use torch run.
        splits: by seed.
    """

    dataset: Dataset
    protocol: Protocol
    shots: tuple[int, ...]
    seeds: tuple[int, ...]
    metrics: tuple[str, ...] = METRICS
    tune: bool = False
    device: str = "cpu"
    splits: Mapping[int, Split] = field(default_factory=dict, repr=False)

    @property
    def depth(self) -> int:
        """How long lists are."""
        return max(LEAST_DEPTH, *(Metric.parse(name).k for name in self.metrics))

    def settings(self) -> dict[str, Any]:
        """What makes two runs the same run."""
        return {
            "format": 1, "dataset": self.dataset.fingerprint, "protocol": self.protocol, "shots": [*self.shots],
            "seeds": [*self.seeds], "metrics": [*self.metrics], "tune": self.tune,
        }  # fmt: skip


def make_plan(
    dataset: Dataset,
    *,
    protocol: Protocol = "user",
    shots: Sequence[int] | None = None,
    seeds: Sequence[int] = SEEDS,
    metrics: Sequence[str] = METRICS,
    tune: bool = False,
    device: str = "auto",
) -> Plan:
    """Check the settings and split the data; nothing is fitted.

    Raises:
        InvalidDataError: on settings that cannot be run on this data set.
    """
    shots = tuple(sorted(set(shots if shots is not None else (10,) if protocol == "item" else SHOTS)))
    seeds = tuple(dict.fromkeys(seeds))
    if not shots or min(shots) < 0:
        raise InvalidDataError(f"shots={list(shots)} must name at least one number, none below 0.")
    if not seeds:
        raise InvalidDataError("seeds must name at least one seed.")
    if not metrics:
        raise InvalidDataError("metrics must name at least one metric, such as 'ndcg@10'.")
    for name in metrics:
        Metric.parse(name)
    device = str(device_of(device))
    splits = {seed: split(dataset, protocol, seed) for seed in seeds}
    plan = Plan(dataset, protocol, shots, seeds, tuple(metrics), tune, device, splits)
    for seed, one in splits.items():
        empty = [k for k in shots if not len(one.tasks("test", k))]
        if empty:
            longest = int(one.test.lengths.max())
            raise InvalidDataError(
                f"No test user of seed {seed} has anything left to find after {few(empty)} shots; the longest history "
                f"has {longest:,} items. Leave those shots out."
            )
    return plan
