"""A shop on its first day: items with texts, no log. What is known without one, and numbers that were learned elsewhere.

Items are known by their texts, in two ways: by a vector, half-whitened on the shop's own texts, and by a list of the items
with the nearest texts, in the place of those that stand in the same histories. What a user's items say in both, by their
number and by age, are the numbers of a head that was fitted on another log.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from mecold.data.catalog import Catalog
from mecold.errors import InvalidDataError
from mecold.heads.preference import PreferenceHead
from mecold.meta.config import MetaConfig
from mecold.model import NO_LOG, Model, axes_of
from mecold.report import FitReport
from mecold.space.basis import Basis
from mecold.space.channel import LISTS, Channel
from mecold.space.channels.counts import POPULARITY
from mecold.space.channels.text import TEXT
from mecold.space.lists import lists_of_texts
from mecold.space.shelf import Shelf
from mecold.space.space import ItemSpace
from mecold.store import load_model


class Averaged(NamedTuple):
    """Numbers of heads of several shops, in the mean, at `KNOTS`.

    Args:
        text: log scale of texts by shots.
        lists: log scale of lists by shots.
        fade: log weight of lists by age.
    """

    text: Sequence[float]
    lists: Sequence[float]
    fade: Sequence[float]

    @classmethod
    def of(cls, heads: Sequence[PreferenceHead]) -> "Averaged":
        """The mean over some heads."""
        scales = [head.prior.scale + head.gains.gain.clamp(min=LEAST).log() for head in heads]

        def mean(tables: Sequence[Tensor], name: str) -> list[float]:
            columns = [table[:, head.column[name]] for table, head in zip(tables, heads, strict=True)]
            return [round(value, 2) for value in torch.stack(columns).mean(0).tolist()]

        fades = [head.prior.fade for head in heads]
        return cls(mean(scales, TEXT.name), mean(scales, LISTS), mean(fades, LISTS))


LEAST = 1e-3  # of a gain, so that it has a logarithm

BUILT_IN = Averaged(
    text=(0.5, 1.06, 0.99, 1.03, 0.81, 0.65, 0.72, 0.26),
    lists=(1.5, 2.53, 2.46, 2.54, 2.59, 2.44, 2.04, 1.76),
    fade=(0.74, 0.06, -0.64, -0.92, -1.52, -2.11, -3.08, -2.97),
)
"""Of amazon_office_2014, online_retail_2011, xwines_slim and movielens_1m_positive (`bench/day_one.py` prints them)."""


def prior_of(source: object) -> Model | None:
    """The model of a saved recommender; None for None.

    Raises:
        InvalidDataError: if this is no path.
        ModelFileError: if there is no whole model.
    """
    if source is None:
        return None
    if not isinstance(source, str | Path):
        raise InvalidDataError(
            f"The prior is a {type(source).__name__}; pass the folder of a saved model, or a Recommender."
        )
    return load_model(Path(source)).model


def opened(
    catalog: Catalog,
    vectors: Float[Tensor, "items text_dim"],
    prior: Model | None,
    config: MetaConfig,
    encoder: str,
    index: str,
    notes: Sequence[str],
    averaged: Averaged = BUILT_IN,
) -> tuple[Model, Shelf]:
    """Model and shelf of a shop without a log.

    Args:
        catalog: the items.
        vectors: of their texts, on the device where the model is to be.
        prior: model of another shop; None takes averaged numbers.
        config: settings.
        encoder: fingerprint of what made the vectors.
        index: how items are searched.
        notes: on the texts.
        averaged: what is taken without a prior.
    """
    nobody = vectors.new_zeros(len(vectors))
    basis = Basis.fit(vectors, nobody + 1, config.text_rank)
    basis = replace(basis, popular=vectors.new_tensor([0.0, 1.0]))  # nothing is more popular than anything else
    text = basis.text(vectors)
    channels = {
        TEXT.name: Channel.of(TEXT.name, TEXT.traits, text, text),
        POPULARITY.name: Channel.of(POPULARITY.name, POPULARITY.traits, None, nobody[:, None]),
    }
    lists = lists_of_texts(text, config.factors.neighbours)
    space = ItemSpace(channels, lists, nobody, torch.ones_like(nobody, dtype=torch.bool))
    start = PreferenceHead.start({name: one.traits for name, one in channels.items()}, config.head, vectors.device)
    head = _averaged(start, averaged) if prior is None else _learned(start, prior.head.to(vectors.device))
    record = FitReport(notes=[_told(prior, encoder), *catalog.notes, *notes]).to_jsonl()
    return Model(basis, head, encoder, axes_of(space), record), Shelf.of(catalog, space, index)


def _learned(head: PreferenceHead, prior: PreferenceHead) -> PreferenceHead:
    """The head with what the prior says of texts and of lists. Not its inner step: how much texts agree is each shop's own."""
    at = [prior.column[name] for name in head.names]
    numbers, events = prior.prior, head.prior.events
    taken = {name: value[..., at] for name, value in numbers.tensors().items() if name not in ("tied", "events")}
    gains = replace(head.gains, gain=prior.gains.gain[:, at], again=prior.gains.again)
    return replace(head, prior=replace(head.prior, **taken, events=events), gains=gains)


def _averaged(head: PreferenceHead, numbers: Averaged) -> PreferenceHead:
    """The head with averaged numbers."""
    scale, fade = head.prior.scale.clone(), head.prior.fade.clone()
    for name, own in ((TEXT.name, numbers.text), (LISTS, numbers.lists)):
        scale[:, head.column[name]] = scale.new_tensor(own)
    fade[:, head.column[LISTS]] = fade.new_tensor(numbers.fade)
    return replace(head, prior=replace(head.prior, scale=scale, fade=fade))


def _told(prior: Model | None, encoder: str) -> str:
    """What such a model is, in words.

    Args:
        prior: whose numbers it has.
        encoder: fingerprint of the encoder of the items.
    """
    whose = (
        "from numbers averaged over other shops"
        if prior is None
        else f"from the model {prior.fingerprint} of another shop"
    )
    other = "" if prior is None or prior.encoder == encoder else ", which reads texts by another encoder"
    return (
        f"{NO_LOG}: items are known by their texts alone, and what a user's items say comes {whose}{other}. Nothing is known of "
        "what is popular or goes together. Call fit_meta once there is a log."
    )
