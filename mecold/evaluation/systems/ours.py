"""mecold as a system, whole and with one part taken away at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
import torch

from mecold.data.attributes import Attributes, Encode
from mecold.encode.taught import taught_by
from mecold.evaluation.systems.base import TOLD, Kind, Supports, Training, padded
from mecold.meta.config import MetaConfig
from mecold.meta.fit import fit
from mecold.model import Model
from mecold.serving import adapt
from mecold.space.shelf import Shelf
from mecold.space.space import UserVectors
from mecold.version import __version__

Change = Callable[[MetaConfig], MetaConfig]


def _head(**settings: Any) -> Change:
    return lambda config: replace(config, head=replace(config.head, **settings))


def _factors(**settings: Any) -> Change:
    return lambda config: replace(config, factors=replace(config.factors, **settings))


def _training(**settings: Any) -> Change:
    return lambda config: replace(config, training=replace(config.training, **settings))


ABLATIONS: dict[str, Change] = {
    "no-inner": _head(inner=False),
    "no-text": lambda config: config,  # the texts are left out where the vectors are handed over
    "no-collaborative": _factors(symmetric_rank=0, directed_rank=0, neighbours=0),
    "no-symmetric": _factors(symmetric_rank=0),
    "no-directed": _factors(directed_rank=0),
    "no-neighbours": _factors(neighbours=0),
    "no-trend": _factors(trend_bins=0),
    "no-training": _training(epochs=0),
    "no-calibration": _training(calibrate=False),
}
"""What each ablation changes in the configuration."""


@dataclass(frozen=True)
class Mecold:
    """The recommender itself.

    Args:
        without: an ablation out of `ABLATIONS`; "" is the whole.
        config: settings that the ablation starts from.
    """

    without: str = ""
    config: MetaConfig = field(default_factory=MetaConfig)
    kind: Kind = "mecold"
    needs_text: bool = True

    @property
    def name(self) -> str:
        """`mecold` or `mecold-<ablation>`."""
        return "mecold" + (f"-{self.without}" if self.without else "")

    @property
    def fingerprint(self) -> str:
        """Version and every setting."""
        return f"mecold {__version__} {self.without} {self.config}"

    def fit(self, training: Training) -> "FittedMecold":
        """Meta-learn."""
        config = ABLATIONS[self.without](self.config) if self.without else self.config
        vectors = torch.from_numpy(training.vectors)
        if self.without == "no-text":
            vectors = torch.zeros_like(vectors)
        log, known = training.log, Attributes()
        if training.attributes is not None:
            known = Attributes.of([training.attributes], training.dataset.encode)
            log = replace(log, groups=known.groups(training.attributes, training.dataset.encode))
        found = fit(
            log, training.dataset.catalog, vectors.to(training.device), config,
            groups=known.sizes, taught=taught_by(training.dataset.text_encoder, training.dataset.catalog.texts),
            rng=np.random.default_rng(training.seed),
        )  # fmt: skip
        model = Model(found.basis, found.head, encoder="", axes="", log="", events=log.events, attributes=known)
        return FittedMecold(model, Shelf.of(training.dataset.catalog, found.space, "exact"), training.dataset.encode)


@dataclass(frozen=True)
class FittedMecold:
    """A model and its shelf, adapted by the code that serves `Recommender`; supports and times are the protocol's."""

    model: Model
    shelf: Shelf
    encode: Encode
    reads: tuple[str, ...] = TOLD
    told: str = ""

    def adapt(
        self,
        supports: Supports,
        times: np.ndarray | None = None,
        labels: Sequence[np.ndarray] | None = None,
        kinds: Sequence[np.ndarray] | None = None,
        attributes: pl.DataFrame | None = None,
    ) -> UserVectors:
        """One vector per user; `times` are those of each user's newest item, `labels` and `kinds` of the support."""
        sizes = [len(rows) for rows in supports]
        columns = {
            "times": None if times is None else np.repeat(times, sizes),
            "labels": None if labels is None else np.concatenate([*labels, np.empty(0, np.float32)]),
            "kinds": None if kinds is None else np.concatenate([*kinds, np.empty(0, np.int64)]),
            "groups": None if attributes is None else self.model.attributes.groups(attributes, self.encode),
        }
        return adapt(self.model, self.shelf, padded(supports, **columns))

    @torch.inference_mode()
    def scores(self, state: UserVectors) -> np.ndarray:
        """Scores of the catalogue."""
        found: np.ndarray = self.shelf.space.scores(state).cpu().numpy()
        return found
