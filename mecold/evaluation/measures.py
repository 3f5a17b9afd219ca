"""From ranked lists to numbers: per-user metrics, what lies beyond accuracy, and slices. Sees lists only, not systems."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

import mecold.math.metrics as formulas
from mecold.errors import InvalidDataError
from mecold.evaluation.protocol import Tasks

_USERS_AT_ONCE = 1 << 16


class Formula(NamedTuple):
    """A metric: hits of ranked lists and numbers of relevant items to a number per user; and what it is, in words."""

    of: Callable[[Tensor, Tensor], Tensor]
    words: str


FORMULAS = {
    "ndcg": Formula(
        formulas.ndcg, "sum over hits of 1 / log2(rank + 1), divided by the same sum for min(k, relevant) hits in front"
    ),
    "recall": Formula(formulas.recall, "hits among the first k / min(k, relevant)"),
    "mrr": Formula(lambda hit, _: formulas.reciprocal_rank(hit), "1 / rank of the first hit among the first k, else 0"),
    "hit": Formula(lambda hit, _: formulas.hit_rate(hit), "1 if there is a hit among the first k, else 0"),
    "map": Formula(
        formulas.average_precision, "sum over hits of (hits up to that rank / rank), divided by min(k, relevant)"
    ),
}
"""The metrics, one entry each; relevance is binary, users are averaged with equal weight."""

METRICS = ("ndcg@10", "recall@20", "mrr@10", "hit@10", "map@10")


@dataclass(frozen=True)
class Metric:
    """A metric and its cut-off."""

    name: str
    k: int

    @classmethod
    def parse(cls, name: str) -> "Metric":
        """Read a name such as `ndcg@10`.

        Raises:
            InvalidDataError: if there is no such metric.
        """
        found = re.fullmatch(r"([a-z]+)@([1-9][0-9]*)", name)
        if not found or found[1] not in FORMULAS:
            raise InvalidDataError(f"There is no metric {name!r}; write NAME@K with NAME one of {', '.join(FORMULAS)}.")
        return cls(found[1], int(found[2]))


def per_user(
    ranked: Int[np.ndarray, "users depth"], queries: Sequence[np.ndarray], names: Sequence[str] = METRICS
) -> dict[str, Float32[np.ndarray, " users"]]:
    """Each metric for each user.

    Args:
        ranked: rows of recommended items, best first, padded with -1 behind.
        queries: rows of the relevant items, by user.
        names: metrics such as `"ndcg@10"`.

    Raises:
        InvalidDataError: if the lists are shorter than a cut-off and could have been longer, or users differ in number.
    """
    wanted = {name: Metric.parse(name) for name in names}
    if len(ranked) != len(queries):
        raise InvalidDataError(f"{len(ranked):,} lists for {len(queries):,} users.")
    found: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for lists, hit, relevant in _hits(ranked, queries):
        del lists
        for name, metric in wanted.items():
            found[name].append(FORMULAS[metric.name].of(_wide(hit, metric.k), relevant).float().numpy())
    return {name: np.concatenate(parts or [np.empty(0, np.float32)]) for name, parts in found.items()}


def _wide(hit: Bool[Tensor, "users depth"], k: int) -> Bool[Tensor, "users k"]:
    """The first k ranks; a list that ends earlier has no hits behind."""
    return torch.nn.functional.pad(hit[:, :k], (0, max(0, k - hit.shape[1])))


def _hits(ranked: np.ndarray, queries: Sequence[np.ndarray]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Chunks of lists, of their hits, and of numbers of relevant items."""
    sizes = np.fromiter(map(len, queries), np.int64, len(queries))
    flat = np.concatenate([*queries, np.empty(0, np.int64)])
    ends = sizes.cumsum()
    for start in range(0, len(ranked), _USERS_AT_ONCE):
        size = sizes[start : start + _USERS_AT_ONCE]
        mask = np.arange(max(1, size.max(initial=0))) < size[:, None]
        relevant = np.full(mask.shape, -2, np.int64)
        relevant[mask] = flat[ends[start] - sizes[start] : ends[start] - sizes[start] + size.sum()]
        lists = torch.from_numpy(ranked[start : start + _USERS_AT_ONCE].astype(np.int64))
        hit = formulas.hits(lists, torch.from_numpy(relevant), torch.from_numpy(mask))
        yield lists, hit, torch.from_numpy(size)


@dataclass(frozen=True)
class ItemFacts:
    """What is known of the items, for everything beyond accuracy.

    Args:
        counts: training users per item.
        users: how many training users there are.
        lengths: characters of each item's text.
        vectors: text vectors, or None where no system asked for them.
    """

    counts: Float32[np.ndarray, " items"]
    users: int
    lengths: Int[np.ndarray, " items"]
    vectors: Float32[np.ndarray, "items text_dim"] | None = None

    @property
    def percentile(self) -> Float[np.ndarray, " items"]:
        """Share of items that are touched less, ties shared: 0.5 on average."""
        values, place, sizes = np.unique(self.counts, return_inverse=True, return_counts=True)
        del values
        ends = sizes.cumsum()
        share: np.ndarray = ((ends - sizes / 2) / len(self.counts))[place]
        return share


def beyond(ranked: Int[np.ndarray, "users depth"], facts: ItemFacts, k: int = 10) -> dict[str, float]:
    """What the first k ranks of all users look like together.

    `coverage`: share of the catalogue that anyone is shown. `gini`: inequality of exposure over the catalogue (0 equal,
    1 one item). `popularity_percentile`: of recommended items, 0.5 is a random item. `novelty`: mean of
    -log2(share of training users who have the item). `new_items`: share of recommendations that no training user has.
    `diversity`: mean of 1 - cosine of text vectors over the pairs of a list.
    """
    lists = ranked[:, :k]
    shown = lists[lists >= 0]
    n = len(facts.counts)
    exposure = np.sort(np.bincount(shown, minlength=n))
    total = max(1, len(shown))
    share = np.maximum(facts.counts, 0.5) / max(1, facts.users)
    values = {
        "coverage": float((exposure > 0).mean()),
        "gini": float(((2 * np.arange(1, n + 1) - n - 1) * exposure).sum() / (n * total)),
        "popularity_percentile": float(facts.percentile[shown].mean()) if len(shown) else 0.0,
        "novelty": float(-np.log2(share[shown]).mean()) if len(shown) else 0.0,
        "new_items": float((facts.counts[shown] == 0).mean()) if len(shown) else 0.0,
    }
    if facts.vectors is not None:
        values["diversity"] = _diversity(lists, facts.vectors)
    return values


def _diversity(lists: np.ndarray, vectors: np.ndarray) -> float:
    """1 - mean cosine over pairs, from the length of the sum of unit vectors: no pair is ever formed."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    total, pairs = 0.0, 0
    for start in range(0, len(lists), 4096):
        part = lists[start : start + 4096]
        real = part >= 0
        gathered = units[np.where(real, part, 0)] * real[..., None]
        size = real.sum(1)
        own = (gathered**2).sum((1, 2))
        alike = (gathered.sum(1) ** 2).sum(1) - own
        total += float(alike.sum())
        pairs += int((size * (size - 1)).sum())
    return 1 - total / max(1, pairs)


def slices(
    ranked: Int[np.ndarray, "users depth"],
    tasks: Tasks,
    facts: ItemFacts,
    quality: Float[np.ndarray, " users"],
    headline: str,
) -> dict[str, dict[str, dict[str, float]]]:
    """Quality by kinds of targets and of supports.

    Targets are judged by `found@20`: the share of relevant items of that kind that stand among the first 20. Supports
    are judged by the headline metric (`quality`) of the users that have one of that kind.
    """
    targets = np.concatenate([*tasks.queries])
    owner = np.repeat(np.arange(len(tasks)), [len(query) for query in tasks.queries])
    found = np.concatenate(
        [
            (ranked[start : start + _USERS_AT_ONCE, :20][owner[a:b] - start] == targets[a:b, None]).any(1)
            for start in range(0, len(tasks), _USERS_AT_ONCE)
            for a, b in [np.searchsorted(owner, [start, start + _USERS_AT_ONCE])]
        ]
    )
    warm = np.where(facts.counts[targets] > 0, "warm", "cold")
    result = {
        "target popularity": _by_third(facts.percentile[targets], found, ("tail", "middle", "head"), "found@20"),
        "target text length": _by_third(facts.lengths[targets], found, ("short", "medium", "long"), "found@20"),
        "target warm or cold": _grouped(warm, found, "found@20"),
    }
    if any(map(len, tasks.supports)):
        common = np.array([facts.percentile[s].mean() if len(s) else 0.5 for s in tasks.supports])
        result["support popularity"] = _by_third(common, quality, ("rare", "medium", "common"), headline)
    return result


def _by_third(key: np.ndarray, values: np.ndarray, names: Sequence[str], label: str) -> dict[str, dict[str, float]]:
    """Thirds of equal size, as far as ties allow."""
    edges = np.quantile(key, [1 / 3, 2 / 3])
    return _grouped(np.asarray(names)[np.searchsorted(edges, key, side="left")], values, label)


def _grouped(groups: np.ndarray, values: np.ndarray, label: str) -> dict[str, dict[str, float]]:
    names = dict.fromkeys(groups.tolist())
    return {name: {label: float(values[groups == name].mean()), "count": int((groups == name).sum())} for name in names}


def without_support(
    zero_shot: Int[np.ndarray, " rows"], supports: Sequence[np.ndarray], depth: int
) -> Int[np.ndarray, "users depth"]:
    """The zero-shot list as each user would see it: what the user has already is left out."""
    lists = np.full((len(supports), depth), -1, np.int32)
    for user, support in enumerate(supports):
        rest = zero_shot[~np.isin(zero_shot, support)][:depth]
        lists[user, : len(rest)] = rest
    return lists
