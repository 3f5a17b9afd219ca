"""Quality in a large catalogue: `python bench/scale.py [--items 100000 --users 200000]`.

A generated shop, whose tastes are known; its texts are encoded by the bundled encoder. Splits, tasks and metrics are those of
`mecold.evaluation`, on 2,000 of the test users; settings are chosen on 1,000 of the validation users, per number of shots. The
baselines whose matrices would be items by items are here in sparse form: co-occurrences as they are, EASE by the package
`sansa` (pip install sansa; Spisak et al. 2023), and iALS by implicit.
"""

import argparse
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
import torch
from clock import commit_of, machine

from mecold import Catalog, MetaConfig, PrecomputedEncoder, TextEncoder, TrainConfig
from mecold.encode.encoder import Encoder
from mecold.evaluation.dataset import Dataset
from mecold.evaluation.protocol import Split, Tasks, split
from mecold.evaluation.ranking import rank
from mecold.evaluation.systems.base import Ranker, Supports, System, Training, support_matrix
from mecold.evaluation.systems.factors import ALS
from mecold.evaluation.systems.item_to_item import Popularity
from mecold.evaluation.systems.ours import Mecold
from mecold.evaluation.systems.text import Content
from mecold.math.metrics import hits, ndcg
from mecold.shop import make_shop

SHOTS = (0, 1, 3, 5, 10)
TESTED, VALIDATED = 2_000, 1_000


@dataclass(frozen=True)
class SparseLinear:
    """Scores `support @ left @ right + tie`, all of them sparse but the last."""

    weights: tuple[sp.csr_matrix, ...]
    tie: np.ndarray

    def adapt(self, supports: Supports) -> sp.csr_matrix:
        """The supports as rows."""
        return support_matrix(supports, len(self.tie), None)

    def scores(self, state: Any) -> np.ndarray:
        """Sparse products."""
        for one in self.weights:
            state = state @ one
        found: np.ndarray = state.toarray() + self.tie
        return found


@dataclass(frozen=True)
class SparseKNN:
    """All neighbours by shrunk cosine, as `itemknn` has them."""

    shrink: float

    @property
    def name(self) -> str:
        """With its setting."""
        return f"itemknn[shrink={self.shrink:g}]"

    def fit(self, training: Training) -> SparseLinear:
        """Count co-occurrences."""
        both = (training.matrix.T @ training.matrix).tocsr()
        norm = np.sqrt(training.counts)
        owners = np.repeat(np.arange(both.shape[0]), np.diff(both.indptr))
        both.data = both.data / (norm[owners] * norm[both.indices] + self.shrink) * (owners != both.indices)
        return SparseLinear((both.astype(np.float32),), training.tie)


@dataclass(frozen=True)
class Sansa:
    """EASE by sparse approximate inverses."""

    l2: float
    density: float

    @property
    def name(self) -> str:
        """With its settings."""
        return f"sansa[l2={self.l2:g},density={self.density:g}]"

    def fit(self, training: Training) -> SparseLinear:
        """Invert approximately."""
        from sansa import SANSA, ICFGramianFactorizerConfig, SANSAConfig, UMRUnitLowerTriangleInverterConfig

        model = SANSA(
            SANSAConfig(
                l2=self.l2,
                weight_matrix_density=self.density,
                gramian_factorizer_config=ICFGramianFactorizerConfig(),
                lower_triangle_inverter_config=UMRUnitLowerTriangleInverterConfig(),
            )
        )
        model.fit(training.matrix.copy())
        return SparseLinear(tuple(part.tocsr() for part in model.weights), training.tie)


def encoder_of(texts: Sequence[str], kept: Path | None) -> Encoder | None:
    """The bundled encoder, or what it made of these texts before."""
    if kept is None:
        return None
    distinct = list(dict.fromkeys(texts))
    if not kept.exists():
        np.save(kept, TextEncoder().encode(distinct))
    return PrecomputedEncoder.of(distinct, np.load(kept))


def marks(
    ranker: Ranker, found: Split, part: Literal["test", "valid"], shots: int, users: int, items: int
) -> Mapping[str, float]:
    """nDCG@10 of the first so many users, for each ranking of the split."""
    tasks: Tasks = found.tasks(part, shots).between(0, users)
    values = {}
    for prefix, candidates in found.rankings.items():
        top = torch.from_numpy(rank(ranker, tasks, candidates, 10, items).astype(np.int64))
        width = max(map(len, tasks.queries))
        query = torch.tensor([[*own, *[-1] * (width - len(own))] for own in map(list, tasks.queries)])
        values[prefix] = float(ndcg(hits(top, query, query >= 0), (query >= 0).sum(1)).mean())
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--protocols", default="user,item")
    parser.add_argument("--systems", default="popularity,itemknn,als,sansa,content,mecold")
    parser.add_argument("--fold-users", type=int, default=TrainConfig().fold_users)
    parser.add_argument("--vectors", type=Path, help="An npy file that keeps the encoded texts for the next run.")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    shop = make_shop(args.items, args.users, rng=0, longer=1.7)
    data = Dataset.read(shop.interactions, shop.items, encoder=encoder_of(Catalog.read(shop.items).texts, args.vectors))
    print(
        f"{machine()}, commit {commit_of()}; {args.items:,} items, {args.users:,} users, {len(data.log.items):,} rows\n"
    )
    families: dict[str, list[System]] = {
        "popularity": [Popularity()],
        "itemknn": [SparseKNN(shrink) for shrink in (10, 50, 200)],
        "als": [ALS(factors=factors, alpha=alpha) for factors in (64, 128) for alpha in (1.0, 10.0)],
        "sansa": [Sansa(l2, 100 / args.items) for l2 in (20, 100, 500)],
        "content": [Content()],
        "mecold": [Mecold(config=MetaConfig(training=TrainConfig(fold_users=args.fold_users)))],
    }
    rows = {"user": SHOTS, "item": (10,)}
    for protocol in args.protocols.split(","):
        cut = split(data, protocol, 0)  # type: ignore[arg-type]
        training = Training(cut.train, data)
        for family in args.systems.split(","):
            best: dict[int, tuple[float, str, Mapping[str, float]]] = {}
            for system in families[family]:
                start = perf_counter()
                ranker = Ranker.of(system.fit(training))
                seconds = perf_counter() - start
                for shots in rows[protocol]:
                    on_valid = (
                        marks(ranker, cut, "valid", shots, VALIDATED, args.items)[""]
                        if len(families[family]) > 1
                        else 0.0
                    )
                    if shots not in best or on_valid > best[shots][0]:
                        best[shots] = (on_valid, system.name, marks(ranker, cut, "test", shots, TESTED, args.items))
                print(f"    {protocol}: {system.name} fitted in {seconds:.0f} s", flush=True)
                del ranker
            cells = [f"{mark:.4f}" for shots in rows[protocol] for mark in best[shots][2].values()]
            names = " ".join(dict.fromkeys(name for _, name, _ in best.values()))
            print(f"| {protocol} | {family} | {' | '.join(cells)} | {names} |", flush=True)


if __name__ == "__main__":
    main()
