"""Ads: which of several new creatives to show, from their texts on, and what clicks teach."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch
from jaxtyping import Float64
from safetensors.torch import save_file
from scipy.special import ndtri

from mecold.data.catalog import plain_ids
from mecold.data.frames import Columns, FrameLike
from mecold.data.impressions import read_impressions
from mecold.encode.encoder import Encoder, TextEncoder, encode_or_zero
from mecold.encode.form import form_of
from mecold.encode.taught import taught_by
from mecold.errors import InvalidDataError, ModelFileError, few
from mecold.heads.clicks import Beliefs, Usual, adapt, best_chance
from mecold.lazy import cached_property
from mecold.meta.ads import Cells, learn
from mecold.sealed import Sealed, plain, read_sealed, write_sealed
from mecold.tasks.ad_state import AdState, read_counts, read_creatives, twice_in
from mecold.values import generator, number, path, whole, word

KIND, FORMAT = "click model", 1
LEAST_PLACES = 20
WEIGHT_OF_FORM = 0.3  # of each number of a text's form, beside a vector of length 1

POLICIES = ("thompson", "ucb", "greedy")


class Choice(NamedTuple):
    """A creative to show, and how likely it was to be chosen: log both, or nothing can be learned of other policies later."""

    creative: str | int
    probability: float


@dataclass(frozen=True)
class ClickModel:
    """What places that are over teach of new ones. It does not change; states do.

    Args:
        encoder: reads texts.
        center: mean and scale of features.
        weights: logit of a creative beside the level of its place = scaled features @ weights.
        usual: of places and creatives.
        explore: share of the doubt that Thompson sampling acts on, as rehearsed.
        told: figures of the fit, by name.
        wrote: fingerprint of the encoder that it was fitted with.
    """

    encoder: Encoder
    center: Float64[np.ndarray, "two features"]
    weights: Float64[np.ndarray, " features"]
    usual: Usual
    explore: float
    told: Mapping[str, float]
    wrote: str

    @classmethod
    def fit_meta(
        cls,
        impressions: FrameLike,
        *,
        encoder: Encoder | None = None,
        columns: Columns | None = None,
        horizon: int = 5000,
        rng: int = 0,
        progress: bool = False,
    ) -> "ClickModel":
        """Learn from places that are over: what words do, how much creatives differ, what level to expect, how far to explore.

        Args:
            impressions: frame or path: `text`, `impressions`, `clicks`, `group` (the place: a slot, a test, in which texts
                stood beside one another; only differences within it teach what words do), and `time` or a week, if levels
                drift. Rows of one group and text are added up.
            encoder: reads texts; `TextEncoder()` where None.
            columns: canonical name -> the caller's name.
            horizon: impressions of a place that exploration should pay within.
            rng: seed of all chance.
            progress: show a progress bar while texts are encoded.

        Raises:
            InvalidDataError: on columns or counts that cannot be used, or fewer than 20 groups with two texts, of which the
                encoder was trained on none.
        """
        horizon = whole(horizon, "horizon")
        encoder = encoder or TextEncoder()
        rows = read_impressions(impressions, columns, more=("time",))
        timed = "time" in rows.columns
        last = [pl.col("time").min()] if timed else []
        rows = rows.group_by("group", "text", maintain_order=True).agg(pl.col("impressions", "clicks").sum(), *last)
        rows = _untaught(rows.filter(pl.len().over("group") > 1), encoder)
        if (places := rows["group"].n_unique()) < LEAST_PLACES:
            raise InvalidDataError(
                f"{places:,} groups of the impressions have two texts or more; it takes {LEAST_PLACES} to learn what words do. "
                "Name the column that says which texts stood beside one another: columns={'group': ...}."
            )
        order = pl.col("time" if timed else "group").min().over("group").alias("order")
        place = rows.select(pl.struct(order, "group").rank("dense")).to_series().to_numpy().astype(np.int64) - 1
        texts = rows["text"].to_list()
        features, center = _scaled(_features(encoder, texts, progress=progress), None)
        shown, clicks = (rows[name].to_numpy().astype(np.float64) for name in ("impressions", "clicks"))
        cells = Cells(features, place, shown, clicks)
        if not clicks.any():
            raise InvalidDataError(f"None of {len(rows):,} texts was clicked; join the clicks first.")
        found = learn(cells, timed=timed, horizon=horizon, rng=generator(rng))
        return cls(encoder, center, found.weights, found.usual, found.explore, found.told, encoder.fingerprint)

    @cached_property
    def fingerprint(self) -> str:
        """Of all that was learned."""
        parts = (self.center.tobytes(), self.weights.tobytes(), repr(self.usual).encode(), self.wrote.encode())
        return hashlib.sha256(b"|".join(parts)).hexdigest()[:16]

    def foretell(self, texts: Sequence[str]) -> Float64[np.ndarray, " texts"]:
        """Logit of the click rate of each text beside the level of its place; 0 is the average of a place."""
        found: np.ndarray = _scaled(_features(self.encoder, list(texts)), self.center)[0] @ self.weights
        return found

    def add(self, creatives: Mapping[Any, str] | FrameLike, state: AdState | None = None) -> AdState:
        """A state with further creatives, which nobody has seen.

        Args:
            creatives: id -> text, or a frame or path with `creative_id` and `text`.
            state: what is there already; None: nothing.

        Raises:
            InvalidDataError: on an id twice, an empty id, or an empty text.
        """
        old = AdState.of((), [np.empty(0)] * 3, self.fingerprint) if state is None else self._own(state)
        ids, texts = read_creatives(creatives)
        if old.creatives and ids and type(old.creatives[0]) is not type(ids[0]):
            raise InvalidDataError(
                f"The state has ids such as {old.creatives[0]!r}, the new ones are such as {ids[0]!r}; take one type."
            )
        if twice := twice_in([*old.creatives, *ids]):
            raise InvalidDataError(f"The creatives {few(twice)} are there already; an id stands for one creative.")
        fresh = (self.foretell(texts), np.zeros(len(ids)), np.zeros(len(ids)))
        numbers = [np.concatenate([getattr(old, name), one]) for name, one in zip(AdState.arrays, fresh, strict=True)]
        return AdState.of((*old.creatives, *ids), numbers, self.fingerprint)

    def drop(self, creatives: Sequence[str | int], state: AdState) -> AdState:
        """A state without some creatives.

        Raises:
            InvalidDataError: naming those that are not there.
        """
        gone = self._own(state).rows(plain_ids(creatives, "creatives"))
        keep = np.setdiff1d(np.arange(len(state.creatives)), gone)
        numbers = [getattr(state, name)[keep] for name in AdState.arrays]
        return AdState.of([state.creatives[at] for at in keep.tolist()], numbers, self.fingerprint)

    def observe(self, counts: Mapping[Any, tuple[float, float]] | FrameLike, state: AdState) -> AdState:
        """A state that knows of further impressions and clicks; the order in which they are told does not matter.

        Args:
            counts: id -> (impressions, clicks), or a frame or path with `creative_id`, `impressions` and `clicks`, an event or
                a sum of events a row.
            state: what was known.

        Raises:
            InvalidDataError: naming creatives that are not there, or with more clicks than impressions.
        """
        frame = read_counts(counts, state.creatives)
        rows = self._own(state).rows(frame["creative_id"].to_list())
        size = len(state.creatives)
        shown, clicks = (
            np.bincount(rows, frame[name].to_numpy().astype(np.float64), size) for name in ("impressions", "clicks")
        )
        return replace(state, shown=state.shown + shown, clicks=state.clicks + clicks)

    def chances(
        self, state: AdState, *, among: Sequence[str | int] | None = None, policy: str = "thompson",
        explore: float | None = None, floor: float = 0.0,
    ) -> dict[str | int, float]:  # fmt: skip
        """How likely each creative is to be chosen.

        Args:
            state: what is known.
            among: ids that may be chosen; None: all.
            policy: `"thompson"`: as likely as it is to be the best, its doubt times `explore`; `"ucb"`: the highest of mean
                plus `explore` standard deviations; `"greedy"`: the highest mean.
            explore: share of the doubt that is acted on; None: what the fit rehearsed.
            floor: this share goes to all alike, so that every creative can be judged later.

        Raises:
            InvalidDataError: if nothing may be chosen, an id is not there, or a setting cannot be used.
        """
        word(policy, POLICIES, "policy")
        explore = self.explore if explore is None else number(explore, "explore", 0, 1e6)
        floor = number(floor, "floor", 0, 1)
        rows = np.arange(len(state.creatives)) if among is None else np.unique(state.rows(plain_ids(among, "among")))
        if not len(rows):
            raise InvalidDataError("There is no creative to choose from; add some, or name them in `among`.")
        beliefs, prior = self._believe(self._own(state))
        mean, std = (prior + beliefs.own)[:, rows], beliefs.variance.sqrt()[:, rows]
        if policy != "thompson":
            mean, std = mean + (explore if policy == "ucb" else 0.0) * std, torch.zeros_like(std)
        chance = best_chance(mean, std * explore, torch.ones_like(mean, dtype=torch.bool))[0].numpy()
        chance = (1 - floor) * chance + floor / len(rows)
        return {state.creatives[row]: float(one) for row, one in zip(rows.tolist(), chance, strict=True)}

    def choose(
        self, state: AdState, *, rng: np.random.Generator, among: Sequence[str | int] | None = None,
        policy: str = "thompson", explore: float | None = None, floor: float = 0.0,
    ) -> Choice:  # fmt: skip
        """A creative for one impression, drawn by its chance; see `chances` for arguments and errors."""
        chances = self.chances(state, among=among, policy=policy, explore=explore, floor=floor)
        at = int(rng.choice(len(chances), p=np.array(list(chances.values())) / sum(chances.values())))
        return Choice(*list(chances.items())[at])

    def posterior(self, state: AdState, *, share: float = 0.8) -> pl.DataFrame:
        """What is believed of every click rate.

        Args:
            state: what is known.
            share: of the interval.

        Returns:
            Columns `creative_id`, `shown`, `clicks`, `rate` (the median), `low`, `high`.

        Raises:
            InvalidDataError: on a share that is none.
        """
        number(share, "share", 1e-6, 1 - 1e-6)
        beliefs, prior = self._believe(self._own(state))
        mean, variance = (one[0].numpy() for one in beliefs.logit(prior))
        away = float(ndtri(0.5 + share / 2)) * np.sqrt(variance)
        rates = {name: 1 / (1 + np.exp(-(mean + way))) for name, way in (("rate", 0.0), ("low", -away), ("high", away))}
        ids = pl.Series("creative_id", list(state.creatives), dtype=None if state.creatives else pl.String)
        return pl.DataFrame({"creative_id": ids, "shown": state.shown, "clicks": state.clicks, **rates})

    def save(self, folder: str | Path) -> None:
        """Write the model to a folder, whole or not at all.

        Raises:
            ModelFileError: if the folder holds something else.
        """

        def put(fresh: Path) -> dict[str, Any]:
            tensors = {"center": torch.from_numpy(self.center), "weights": torch.from_numpy(self.weights)}
            save_file(plain(tensors), fresh / "weights.safetensors")
            return {
                "encoder": self.wrote, "usual": vars(self.usual), "explore": self.explore, "told": dict(self.told),
            }  # fmt: skip

        write_sealed(path(folder, "folder"), KIND, FORMAT, put)

    @classmethod
    def load(cls, folder: str | Path, encoder: Encoder | None = None) -> "ClickModel":
        """Read a model.

        Args:
            folder: what `save` wrote.
            encoder: the one that it was fitted with; `TextEncoder()` where None.

        Raises:
            ModelFileError: naming what is missing, damaged or newer, or if the encoder is another one.
        """
        encoder, sealed = encoder or TextEncoder(), read_sealed(path(folder, "folder"), KIND, FORMAT)
        config = sealed.config
        if encoder.fingerprint != config["encoder"]:
            raise ModelFileError(
                f"The click model in '{folder}' was fitted with the encoder {config['encoder']}; this is {encoder.fingerprint}. "
                "Pass the encoder that it was fitted with: ClickModel.load(folder, encoder)."
            )

        def made(sealed: Sealed) -> "ClickModel":
            found = {name: value.numpy() for name, value in sealed.tensors("weights.safetensors").items()}
            usual = Usual(**config["usual"])
            return cls(
                encoder, found["center"], found["weights"], usual, config["explore"], config["told"], config["encoder"]
            )

        model: ClickModel = sealed.built(made)
        return model

    def _own(self, state: AdState) -> AdState:
        if state.model != self.fingerprint:
            raise InvalidDataError(
                f"This state is of the click model {state.model}; this is {self.fingerprint}. Add its creatives to a new state, "
                "and tell their counts again."
            )
        return state

    def _believe(self, state: AdState) -> tuple[Beliefs, torch.Tensor]:
        prior, shown, clicks = (torch.from_numpy(getattr(state, name).copy())[None] for name in AdState.arrays)
        return adapt(prior, shown, clicks, torch.ones_like(prior, dtype=torch.bool), self.usual), prior


def _untaught(rows: pl.DataFrame, encoder: Encoder) -> pl.DataFrame:
    """Without groups that the encoder was trained on: of these it foretells more than it will of new ones.

    Raises:
        InvalidDataError: if it was trained on nearly all of them.
    """
    met = taught_by(encoder, rows["text"].to_list())
    if not met.any():
        return rows
    fresh = rows.with_columns(met=pl.Series(met)).filter(~pl.col("met").any().over("group")).drop("met")
    if (left := fresh["group"].n_unique()) < LEAST_PLACES:
        raise InvalidDataError(
            f"The encoder was trained on texts of all but {left:,} of {rows['group'].n_unique():,} groups, and looks better on "
            f"them than on new ones; it takes {LEAST_PLACES} that it has not met. Train it on the older groups, "
            "and fit on the newer."
        )
    return fresh


def _features(encoder: Encoder, texts: list[str], *, progress: bool = False) -> Float64[np.ndarray, "texts features"]:
    """The encoder's vectors, of length 1, and the form of texts."""
    vectors = encode_or_zero(encoder, texts, progress=progress).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    return np.concatenate([vectors, form_of(texts)], axis=1)


def _scaled(features: np.ndarray, center: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Features about their mean: vectors of length 1 on the average, each number of the form `WEIGHT_OF_FORM`."""
    form = form_of([""]).shape[1]
    if center is None:
        mean = features.mean(0)
        away = features - mean
        scale = away.std(0)
        scale[:-form] = np.sqrt((away[:, :-form] ** 2).sum(1).mean())
        scale[-form:] /= WEIGHT_OF_FORM
        center = np.stack([mean, np.where(scale > 1e-12, scale, np.inf)])
    return (features - center[0]) / center[1], center
