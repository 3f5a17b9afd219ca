"""What an evaluation found, as records; and the one place that knows how they stand in `report.json`.

Maps are keyed by what they are of: a system's name, a seed, a number of shots `k`, a metric's name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mecold.evaluation.results import Costs
from mecold.evaluation.systems.base import Kind

FORMAT = 1

GAIN = "gain"
"""Name of the headline metric minus that of the system's own zero-shot list, same users, same query."""


@dataclass(frozen=True)
class Estimate:
    """A mean over users with its 95 % interval.

    Args:
        mean: the mean.
        low: lower end.
        high: upper end.
        users: how many users.
    """

    mean: float
    low: float
    high: float
    users: int


@dataclass(frozen=True)
class Ratio:
    """A ratio of means with its 95 % interval over users."""

    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Bar:
    """The baseline that was chosen for one seed and k, and its headline metric on the test users."""

    system: str
    score: float


@dataclass(frozen=True)
class Envelope:
    """The best baseline of each seed and k, and how every system stands to it.

    Args:
        chosen_on: whose histories decided which is best.
        by_seed: bars by seed and k.
        ratios: by system and k.
        geometric_mean: of a system's ratios over k above 0.
    """

    chosen_on: str
    by_seed: Mapping[int, Mapping[int, Bar]]
    ratios: Mapping[str, Mapping[int, Ratio]]
    geometric_mean: Mapping[str, float]


@dataclass(frozen=True)
class Comparison:
    """A paired test of a system against the reference on the headline metric.

    Args:
        system: who.
        reference: against whom.
        metric: on what.
        shots: k.
        seed: of one seed; None over all.
        difference: mean over users.
        p: two-sided.
        p_holm: the same, corrected.
        low: lower end of the difference's 95 % interval; over all seeds only.
        high: upper end.
    """

    system: str
    reference: str
    metric: str
    shots: int
    seed: int | None
    difference: float
    p: float
    p_holm: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Overall:
    """A system against the reference over all k above 0 together: ratio of means, and p of a sign-flip test over users."""

    ratio: float
    p: float


Groups = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Kind of slice -> group -> what was measured, and `count`."""


@dataclass(frozen=True)
class SystemFindings:
    """One system.

    Args:
        kind: which envelope it belongs to, if any.
        scores: by seed, k and metric.
        mean: over seeds, by k and metric.
        costs: medians over seeds.
        chosen: with tuning, the member that won on validation, by seed and k.
        told: what the fitted system says of itself, by seed.
        beyond: coverage, novelty and the like, by k and name.
        slices: by k.
    """

    kind: Kind
    scores: Mapping[int, Mapping[int, Mapping[str, Estimate]]]
    mean: Mapping[int, Mapping[str, Estimate]]
    costs: Costs = field(default_factory=Costs)
    chosen: Mapping[int, Mapping[int, str]] = field(default_factory=dict)
    told: Mapping[int, str] = field(default_factory=dict)
    beyond: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    slices: Mapping[int, Groups] = field(default_factory=dict)


@dataclass(frozen=True)
class SplitSizes:
    """One split in numbers; `cold_items` in the item split alone."""

    train_users: int
    train_interactions: int
    test_users: int
    valid_users: int
    cold_items: int | None = None


@dataclass(frozen=True)
class Histogram:
    """Counts over bins; bin `i` reaches from `edges[i]` to below `edges[i + 1]`."""

    edges: Sequence[float]
    counts: Sequence[float]


@dataclass(frozen=True)
class DatasetFindings:
    """The data set in numbers."""

    name: str
    users: int
    items: int
    interactions: int
    order: str
    items_without_interactions: int
    items_without_text: int
    median_items_per_user: float
    median_users_per_item: float
    fingerprint: str
    notes: Sequence[str]
    histograms: Mapping[str, Histogram]
    liked_from: float | None = None


@dataclass(frozen=True)
class Findings:
    """All that an evaluation found but the values of single users.

    Args:
        mecold: version.
        versions: of the libraries.
        dataset: the data.
        protocol: user, time or item.
        seeds: of the splits.
        shots: every k, ascending.
        metrics: the headline first.
        formulas: in words.
        tuned: whether baselines' settings were chosen.
        reference: the system that the others are compared with.
        split: sizes by seed.
        systems: by name.
        failed: reason by name.
        envelope: of `all` baselines, and of the `order-blind` ones.
        comparisons: paired tests.
        overall: each system against the reference over all k above 0.
    """

    mecold: str
    versions: Mapping[str, str]
    dataset: DatasetFindings
    protocol: str
    seeds: Sequence[int]
    shots: Sequence[int]
    metrics: Sequence[str]
    formulas: Mapping[str, str]
    tuned: bool
    reference: str
    split: Mapping[int, SplitSizes]
    systems: Mapping[str, SystemFindings]
    failed: Mapping[str, str]
    envelope: Mapping[str, Envelope]
    comparisons: Sequence[Comparison]
    overall: Mapping[str, Overall]

    @property
    def headline(self) -> str:
        """The first metric: compared, tested, and held against the envelope."""
        return self.metrics[0]

    @property
    def positive(self) -> list[int]:
        """Every k above 0."""
        return [k for k in self.shots if k > 0]

    def score(self, system: str, k: int, metric: str | None = None) -> Estimate:
        """A system's mean over seeds; the headline metric unless named."""
        return self.systems[system].mean[k][metric or self.headline]

    def ranked(self) -> list[str]:
        """Systems, best first by the headline metric's mean over the k above 0."""
        shots = self.positive or self.shots
        return sorted(self.systems, key=lambda name: -sum(self.score(name, k).mean for k in shots))

    def to_json(self) -> dict[str, Any]:
        """As in `report.json`: keys are text, a system's costs stand among its own, what was not measured is left out."""
        data = {"format": FORMAT, **asdict(self)}
        for one in data["systems"].values():
            one |= {name: cost for name, cost in one.pop("costs").items() if cost is not None}
            for name in ("chosen", "told"):
                if not one[name]:
                    del one[name]
        for one in data["envelope"].values():
            for by_k in one["by_seed"].values():
                by_k |= {k: {"system": bar["system"], self.headline: bar["score"]} for k, bar in by_k.items()}
            for name, mean in one.pop("geometric_mean").items():
                one["ratios"][name]["geometric_mean"] = mean
        for row in data["comparisons"]:
            row["seed"] = "all" if row["seed"] is None else row["seed"]
        found: dict[str, Any] = _plain(data)
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Findings":
        """The inverse of `to_json`."""
        headline = data["metrics"][0]
        return cls(
            **{key: data[key] for key in ("mecold", "versions", "protocol", "seeds", "shots", "metrics", "formulas")},
            **{key: data[key] for key in ("tuned", "reference", "failed")},
            dataset=DatasetFindings(
                **data["dataset"]
                | {"histograms": {name: Histogram(**one) for name, one in data["dataset"]["histograms"].items()}}
            ),
            split={int(seed): SplitSizes(**one) for seed, one in data["split"].items()},
            systems={name: _system(one) for name, one in data["systems"].items()},
            envelope={name: _envelope(one, headline) for name, one in data["envelope"].items()},
            comparisons=[
                Comparison(**row | {"seed": None if row["seed"] == "all" else row["seed"]})
                for row in data["comparisons"]
            ],
            overall={name: Overall(**one) for name, one in data["overall"].items()},
        )


def _plain(value: Any) -> Any:
    """Keys as text, tuples as lists, optional fields that are None left out: what JSON gives back."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items() if one is not None}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _by_number(value: Mapping[str, Any]) -> dict[int, Any]:
    return {int(key): one for key, one in value.items()}


def _estimates(by_k: Mapping[str, Any]) -> dict[int, dict[str, Estimate]]:
    return {int(k): {metric: Estimate(**one) for metric, one in cell.items()} for k, cell in by_k.items()}


def _system(one: Mapping[str, Any]) -> SystemFindings:
    return SystemFindings(
        kind=one["kind"],
        scores={int(seed): _estimates(by_k) for seed, by_k in one["scores"].items()},
        mean=_estimates(one["mean"]),
        costs=Costs(**{name: one.get(name) for name in Costs.__dataclass_fields__}),
        chosen={int(seed): _by_number(by_k) for seed, by_k in one.get("chosen", {}).items()},
        told=_by_number(one.get("told", {})),
        beyond=_by_number(one["beyond"]),
        slices=_by_number(one["slices"]),
    )


def _envelope(one: Mapping[str, Any], headline: str) -> Envelope:
    bars = {
        int(seed): {int(k): Bar(bar["system"], bar[headline]) for k, bar in by_k.items()}
        for seed, by_k in one["by_seed"].items()
    }
    means = {name: by_k["geometric_mean"] for name, by_k in one["ratios"].items() if "geometric_mean" in by_k}
    ratios = {
        name: {int(k): Ratio(**ratio) for k, ratio in by_k.items() if k != "geometric_mean"}
        for name, by_k in one["ratios"].items()
    }
    return Envelope(one["chosen_on"], bars, ratios, means)
