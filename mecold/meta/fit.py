"""One fit, from histories and text vectors to a trained head and the item space it serves."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mecold.data.catalog import Catalog
from mecold.data.events import Events
from mecold.data.interactions import Interactions
from mecold.errors import InvalidDataError
from mecold.heads.preference import PreferenceHead
from mecold.meta.again import learn_again
from mecold.meta.calibrate import calibrate
from mecold.meta.config import MetaConfig
from mecold.meta.crossfit import Views, cross_fit
from mecold.meta.newcomers import calibrate_newcomers
from mecold.meta.train import Lessons, lessons_of, train
from mecold.report import Recorder
from mecold.space.basis import Basis
from mecold.space.channels import trend
from mecold.space.channels.host import ItemFactors
from mecold.space.space import ItemSpace
from mecold.space.view import Survey

UNLIKED = 0.25  # of a like: what rows below the mark are worth at the least on logs of films and wines
MOST_ROWS = 20  # of all kinds of events that are read for one that is predicted
WEAKER = 0.5  # of the strongest kind of event: what the others say before training
LEAST_DEMAND = 0.4  # for new items: some are shown however little late arrivals were wanted


@dataclass(frozen=True)
class FitResult:
    """What a fit leaves behind.

    Args:
        basis: scales of the item space.
        head: trained and calibrated head.
        space: the item space of all users.
        survey: what was liked, in rows of the catalogue, and how a space is made of it.
        labels: of every interaction of the log.
        start: state of the draws from which the space was made.
    """

    basis: Basis
    head: PreferenceHead
    space: ItemSpace
    survey: Survey
    labels: Float[np.ndarray, " rows"]
    start: Tensor


def fit(
    log: Interactions,
    catalog: Catalog,
    vectors: Float[Tensor, "items text_dim"],
    config: MetaConfig,
    *,
    factors: ItemFactors | None = None,
    groups: tuple[int, ...] = (),
    taught: Bool[np.ndarray, " items"] | None = None,
    rng: np.random.Generator,
    rehearsal: np.random.Generator | None = None,
    recorder: Recorder | None = None,
) -> FitResult:
    """Cross-fit factors, meta-train the head, calibrate, and build the space of all users' factors.

    Args:
        log: histories.
        catalog: the items; resolves the ids of `factors`.
        vectors: text vectors, on the device where the work is to be done.
        config: settings.
        factors: a host's factors, in place of the symmetric channel.
        groups: number of groups of each attribute, where `log.groups` says who belongs to which.
        taught: True for items that the encoder was trained on; None: it was trained on none.
        rng: all randomness.
        rehearsal: draws the items treated as new, and their users; None: `rng`.
        recorder: takes curves and notes.

    Raises:
        InvalidDataError: if there is no user to learn from.
    """
    with torch.inference_mode(False), torch.enable_grad():  # whatever the caller's mode is
        own = vectors.clone() if vectors.is_inference() else vectors
        return _fit(log, catalog, own, config, factors, groups, taught, rng, rehearsal or rng, recorder or Recorder())


def _fit(
    log: Interactions, catalog: Catalog, vectors: Float[Tensor, "items text_dim"], config: MetaConfig,
    factors: ItemFactors | None, groups: tuple[int, ...], taught: Bool[np.ndarray, " items"] | None,
    rng: np.random.Generator, rehearsal: np.random.Generator, recorder: Recorder,
) -> FitResult:  # fmt: skip
    recorder.report.notes += [*catalog.notes, *log.notes]
    if ignored := log.unread_ratings(config.liked_from):
        recorder.note(ignored)
    labels = log.labels_from(config.liked_from)
    eligible = _eligible(log, labels, config, factors, recorder)
    sides = None if factors is None else factors.sides(catalog)
    views = cross_fit(log, labels > 0, eligible, vectors, config, rng, sides, groups)
    lessons = _lessons(log, labels, eligible, views, config, rng, recorder)
    traits = {name: channel.traits for name, channel in views.folds[0].channels.items()}
    unliked = UNLIKED if (labels < 1).any() else 0.0
    weaker = _weaker(log.events, config)
    head = PreferenceHead.start(traits, config.head, vectors.device, unliked, weaker)
    head = train(head, lessons, recorder, rng=rng, fixed=("events",) if config.events else ())
    basis = views.basis
    if config.training.calibrate:
        gains, values = calibrate(head, lessons, rng=rng)
        head = replace(head, gains=gains)
        values["cold/demand"] = _demand(log.where((labels > 0) & log.goal), catalog.size)
        most = config.training.new_item_share * values["cold/demand"]
        basis, head, of_new = calibrate_newcomers(basis, head, lessons, most=most, rng=rehearsal, taught=taught)
        if log.again is not None:
            again, of_old = learn_again(
                head, views.folds, views.fold_of, log.again, config.training.query, last=log.kinds is not None, rng=rng
            )
            head, of_new = replace(head, gains=replace(head.gains, again=again)), of_new | of_old
        recorder.record(int(recorder.report.events[-1]["step"]), values | of_new)
    whole, survey = views.whole, views.survey
    start = survey.draws.get_state()
    del lessons, views  # the folds' factors make room for those of all users
    return FitResult(basis, head, whole().space(basis), survey, labels, start)


def _lessons(
    log: Interactions,
    labels: Float[np.ndarray, " rows"],
    eligible: Bool[np.ndarray, " users"],
    views: Views,
    config: MetaConfig,
    rng: np.random.Generator,
    recorder: Recorder,
) -> Lessons:
    settings = config.training
    # goals are spread among other events: as many rows are read as are likely to hold a whole query
    rare = min(MOST_ROWS, 1 / max(float(log.goal.mean()), 1e-9))
    pupils = np.flatnonzero(views.fold_of >= 0)
    users = log.histories(labels, pupils, first=settings.max_shots + int(np.ceil(settings.query * rare)))
    lessons = lessons_of(views.folds, users, views.fold_of[pupils], eligible[pupils], settings, rng)
    if not any(map(len, lessons.held_out)):
        recorder.note("No user was held out: training ran through all its epochs, and the last one was kept.")
    return lessons


def _weaker(events: Events, config: MetaConfig) -> list[float]:
    """What the kinds of events but the strongest say to begin with; as given, where strengths are."""
    given = config.events
    return [WEAKER if not given else given[name] / given[events.names[0]] for name in events.names[1:]]


def _demand(liked: Interactions, items: int) -> float:
    """Demand for new items, within bounds; as for known ones where the log shows nothing of it."""
    clock = liked.timestamps
    found = None if clock is None else trend.demand_for_new(liked.items, clock, items)
    return 1.0 if found is None else float(np.clip(found, LEAST_DEMAND, 1.0))


def _eligible(
    log: Interactions, labels: np.ndarray, config: MetaConfig, factors: ItemFactors | None, recorder: Recorder
) -> np.ndarray:
    """Users to draw episodes from: two items at least, and unseen by a host's factors where it says who is."""
    if config.liked_from is not None and log.ratings is None:
        raise InvalidDataError("MetaConfig.liked_from needs a rating column; the interactions have none.")
    if not (log.goal & (labels > 0)).any():
        raise InvalidDataError("No interaction is rated at least MetaConfig.liked_from: there is nothing to learn.")
    eligible = log.lengths >= 2
    if factors is not None and len(factors.unseen_users):
        unseen = set(factors.unseen_users)
        eligible &= np.array([user in unseen for user in log.users.to_list()])
    elif factors is not None:
        recorder.note(
            "The factors came without unseen_users: episodes were drawn from users that they may have been fitted on, "
            "which makes the factors look better in training than they are for new users."
        )
    if not eligible.any():
        raise InvalidDataError(
            f"None of the {len(log):,} users can serve as an example: it takes at least two distinct items"
            + (", and a user among the factors' unseen_users." if factors is not None else ".")
        )
    return eligible
