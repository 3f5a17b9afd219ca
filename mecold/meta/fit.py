"""One fit, from histories and text vectors to a trained head and the item space it serves."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

import mecold.space.channels.trend as trend
from mecold.data.catalog import Catalog
from mecold.errors import InvalidDataError
from mecold.space.statistics import ItemFactors
from mecold.heads.preference import PreferenceHead
from mecold.data.interactions import Interactions
from mecold.meta.calibrate import calibrate
from mecold.meta.newcomers import calibrate_cold
from mecold.meta.config import MetaConfig
from mecold.meta.crossfit import cross_fit
from mecold.meta.episodes import labels_of, opening
from mecold.report import FitReport, Tracker
from mecold.meta.train import split_learners, train
from mecold.space.space import ItemSpace, ItemTower, Layout

LEAST_DEMAND = 0.4  # for new items: some are shown however little late arrivals were wanted


@dataclass(frozen=True)
class Fitted:
    """What a fit leaves behind."""

    tower: ItemTower
    head: PreferenceHead
    space: ItemSpace
    report: FitReport


def fit(
    log: Interactions,
    catalog: Catalog,
    vectors: Float[Tensor, "items text_dim"],
    config: MetaConfig,
    *,
    factors: ItemFactors | None = None,
    rng: np.random.Generator,
    trackers: Sequence[Tracker] = (),
    progress: bool = False,
) -> Fitted:
    """Cross-fit factors, meta-train the head, calibrate, and build the space of all users' factors.

    Args:
        log: histories.
        catalog: the items; resolves the ids of `factors`.
        vectors: text vectors, on the device where the work is to be done.
        config: settings.
        factors: a host's factors, in place of the symmetric channel.
        rng: all randomness.
        trackers: hear of every epoch.
        progress: show progress bars.

    Raises:
        InvalidDataError: if no interaction is a liking, or no user has two items to learn from.
    """
    report = FitReport(notes=[*catalog.notes, *log.notes])
    labels = labels_of(log, config.liked_from)
    eligible = _eligible(log, labels, config, factors, report)
    views = cross_fit(log, labels > 0, vectors, config, rng, None if factors is None else factors.pair(catalog))
    device = vectors.device
    widths = {name: pair.rank for name, pair in views.whole.pairs.items()}
    tower = ItemTower(vectors.shape[1], Layout.of(widths, min(config.text_rank, vectors.shape[1])))
    tower.start_from(vectors.cpu(), views.whole.counts.cpu())
    tower.to(device)
    spaces = [view.space(tower) for view in views.folds]
    head = PreferenceHead(tower.layout, config.head)
    head.centres.copy_(views.centres)
    head.persistence.fill_(views.persistence)
    head.to(device)
    settings = config.training
    users = opening(log, labels, settings.max_shots + settings.query)
    learners = split_learners(views, eligible, settings, rng)
    if not any(map(len, learners.held_out)):
        report.notes.append("No user was held out: training ran through all its epochs, and the last one was kept.")
    train(
        head, views, spaces, users, learners, settings, rng=rng, report=report, trackers=trackers, progress=progress
    )  # fmt: skip
    if settings.calibrate:
        everyone = [np.concatenate(pair) for pair in zip(learners.train, learners.held_out, strict=True)]
        gains = calibrate(head, spaces, users, everyone, settings.query, rng=rng)
        gains["cold/demand"] = _demand(log.where(labels > 0), len(catalog))
        most = settings.new_item_share * gains["cold/demand"]
        gains |= calibrate_cold(tower, head, views, users, everyone, cost=settings.new_item_cost, most=most, rng=rng)
        report.record(int(report.events[-1]["step"]), gains, trackers)
    head.requires_grad_(requires_grad=False)
    return Fitted(tower, head, views.whole.space(tower), report)


def _demand(liked: Interactions, items: int) -> float:
    """Demand for new items, within bounds; as for known ones where the log shows nothing of it."""
    clock = liked.timestamps
    found = None if clock is None else trend.demand_for_new(liked.items, clock, items)
    return 1.0 if found is None else float(np.clip(found, LEAST_DEMAND, 1.0))


def _eligible(
    log: Interactions, labels: np.ndarray, config: MetaConfig, factors: ItemFactors | None, report: FitReport
) -> np.ndarray:
    """Users to draw episodes from: two items at least, and unseen by a host's factors where it says who is."""
    if config.liked_from is not None and log.ratings is None:
        raise InvalidDataError("MetaConfig.liked_from needs a rating column; the interactions have none.")
    if not (labels > 0).any():
        raise InvalidDataError("No interaction is rated at least MetaConfig.liked_from: there is nothing to learn.")
    eligible = log.lengths >= 2
    if factors is not None and len(factors.unseen_users):
        unseen = set(factors.unseen_users)
        eligible &= np.array([user in unseen for user in log.users.to_list()])
    elif factors is not None:
        report.notes.append(
            "The factors came without unseen_users: episodes were drawn from users that they may have been fitted on, "
            "which makes the factors look better in training than they are for new users."
        )
    if not eligible.any():
        raise InvalidDataError(
            f"None of the {len(log):,} users can serve as an example: it takes at least two distinct items"
            + (", and a user among the factors' unseen_users." if factors is not None else ".")
        )
    return eligible
