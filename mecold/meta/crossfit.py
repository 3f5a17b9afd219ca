"""Cross-fitting: item spaces whose factors and counts never saw the users that are scored with them.

Of a log with very many users there is one fold: it costs one space in place of several, which holds nearly all users.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from mecold.data.interactions import Interactions
from mecold.meta.config import MetaConfig, TrainConfig
from mecold.space.basis import Basis
from mecold.space.making import Sides
from mecold.space.space import ItemSpace
from mecold.space.view import Survey, View


@dataclass(frozen=True)
class Views:
    """One space per fold, without that fold's users, to learn from; and a view of all users, to deploy, made last.

    Args:
        folds: spaces fitted on all users but those of the fold.
        fold_of: fold of each user of the log; -1 for users who are in every view, and not learned from.
        basis: scales, fitted on all users.
        survey: what all views were made of.
        whole: makes the view of all users; once.
    """

    folds: tuple[ItemSpace, ...]
    fold_of: Int64[np.ndarray, " users"]
    basis: Basis
    survey: Survey
    whole: Callable[[], View]


def cross_fit(
    log: Interactions,
    liked: np.ndarray,
    eligible: Bool[np.ndarray, " users"],
    vectors: Float[Tensor, "items text_dim"],
    config: MetaConfig,
    rng: np.random.Generator,
    given: Sides | None = None,
    groups: tuple[int, ...] = (),
) -> Views:
    """Fit channels for each fold on all users but its own.

    Args:
        log: histories.
        liked: True where an interaction is a liking; only those enter factors and counts.
        eligible: True for users that can be learned from.
        vectors: text vectors, on the device where the work is done.
        config: settings.
        rng: draws the folds and the start of the low-rank iteration.
        given: factors of a host, used in every view in place of the symmetric channel.
        groups: number of groups of each attribute of the users.
    """
    # they do not hang on how many users there are: more of a log is surveyed from the same start
    draws = torch.Generator().manual_seed(int(rng.spawn(1)[0].integers(2**62)))
    fold_of = _folds(eligible, config.training, rng)
    if given is not None:
        given = Sides(
            None if given.support is None else given.support.to(vectors.device), given.item.to(vectors.device)
        )
    survey = Survey(log.where(liked), len(vectors), config.factors, draws, given, groups)
    basis = Basis.fit(vectors, torch.from_numpy(survey.total.counts), config.text_rank)
    text = basis.text(vectors)
    of_folds = (np.flatnonzero(fold_of == fold) for fold in range(fold_of.max() + 1))
    folds = tuple(survey.view(survey.without(users), text, basis).space(basis) for users in of_folds)
    return Views(folds, fold_of, basis, survey, lambda: survey.view(survey.total, text, basis))


def _folds(eligible: np.ndarray, config: TrainConfig, rng: np.random.Generator) -> Int64[np.ndarray, " users"]:
    order = rng.permutation(len(eligible))
    if len(order) <= config.folds * config.fold_users:
        return order % config.folds
    fold_of = np.full(len(order), -1)
    fold_of[order[eligible[order]][: config.fold_users]] = 0
    return fold_of
