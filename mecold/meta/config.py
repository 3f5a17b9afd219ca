"""Settings of meta-training, one frozen dataclass per concern; a misspelt one is a TypeError."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mecold.errors import InvalidDataError
from mecold.heads.preference import KNOTS, HeadConfig
from mecold.space.settings import FactorConfig
from mecold.values import flag, number, table, whole


@dataclass(frozen=True)
class TrainConfig:
    """The outer loop.

    Args:
        folds: users are split into this many folds; each is meta-trained with factors that never saw it.
        fold_users: most users of a fold. Where folds would be larger, there is one, of so many users drawn by chance: factors
            without them are nearly those of all users, and take half the time.
        held_out: share of the users that steers early stopping and is not trained on.
        max_shots: supports are drawn with 0 to this many items.
        query: how many following items the outer loss is measured on.
        epochs: most passes over the users.
        patience: epochs without a better nDCG@10 on the held-out users before training stops.
        batch_users: episodes per outer step.
        epoch_users: most episodes per epoch, so that an epoch of a large log stays short.
        lr: step size of the outer optimiser (Adam).
        focus: how much the outer loss looks at the top of the list only (0 likelihood, 1 expected misses).
        full_softmax_items: above this catalogue size the softmax is sampled.
        negatives: how many items the sampled softmax draws per step.
        calibrate: fit the gains on nDCG@10 of cross-fitted users after training.
        new_item_cost: share of nDCG@10 that may be given up, were a fifth of the catalogue new, for new items to be seen.
        new_item_share: most of the lists that new items may have, in units of what users would want of them: their share of
            what is wanted if they were wanted as known items are, times the demand for late arrivals that the log itself
            shows (`trend.demand_for_new`), between 0.4 and 1; 1 where it shows none. Below 1, since a new item that is
            wanted is harder to tell than a known one.
    """

    folds: int = 3
    fold_users: int = 50_000
    held_out: float = 0.1
    max_shots: int = KNOTS[-1]
    query: int = 10
    epochs: int = 30
    patience: int = 4
    batch_users: int = 256
    epoch_users: int = 10_000
    lr: float = 0.03
    focus: float = 0.6
    full_softmax_items: int = 50_000
    negatives: int = 8192
    calibrate: bool = True
    new_item_cost: float = 0.05
    new_item_share: float = 0.5

    def __post_init__(self) -> None:
        for name, low, high in (
            ("folds", 2, 100), ("fold_users", 1, 1 << 40), ("held_out", 0.0, 0.5), ("max_shots", 1, KNOTS[-1]),
            ("query", 1, 1000),
            ("epochs", 0, 100_000), ("patience", 1, 100_000), ("batch_users", 1, 1 << 20), ("epoch_users", 1, 1 << 40),
            ("focus", 0.0, 1.0), ("negatives", 1, 1 << 24),
            ("new_item_cost", 0.0, 1.0), ("new_item_share", 0.0, 1.0),
        ):  # fmt: skip
            value = getattr(self, name)
            number(value, f"TrainConfig.{name}", low, high)
            if isinstance(low, int):
                whole(value, f"TrainConfig.{name}", low, int(high))
        number(self.lr, "TrainConfig.lr", 1e-9, 1e30)
        whole(self.full_softmax_items, "TrainConfig.full_softmax_items", 0)
        flag(self.calibrate, "TrainConfig.calibrate")


@dataclass(frozen=True)
class MetaConfig:
    """Everything `fit_meta` can be told.

    Args:
        factors: how collaborative factors are fitted.
        head: how the head adapts.
        training: the outer loop.
        text_rank: most directions that are kept of the texts.
        liked_from: with ratings, interactions rated lower count as disliked (label -1): they enter supports, but are
            neither predicted nor part of the factors, and what they say is learned. None: every interaction is a liking,
            whatever its rating.
        predict: kinds of events to be predicted, such as `("purchase",)`, where the log has an `event` column; the others are
            read. Empty: all kinds are predicted.
        events: kind -> how much a row of it says, in any unit; None: this is learned.
    """

    factors: FactorConfig = field(default_factory=FactorConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    training: TrainConfig = field(default_factory=TrainConfig)
    text_rank: int = 256
    liked_from: float | None = None
    predict: tuple[str, ...] = ()
    events: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        for name, kind in (("factors", FactorConfig), ("head", HeadConfig), ("training", TrainConfig)):
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise InvalidDataError(f"MetaConfig({name}={value!r:.60}) must be a {kind.__name__}(...).")
        whole(self.text_rank, "MetaConfig.text_rank", 0)
        if self.liked_from is not None:
            number(self.liked_from, "MetaConfig.liked_from", -1e38, 1e38)
        if isinstance(self.predict, str):
            raise InvalidDataError(
                f"MetaConfig(predict={self.predict!r}) is one text; pass a tuple: ({self.predict!r},)."
            )
        events = {} if self.events is None else table(self.events, "MetaConfig.events", "kinds to strengths")
        bad = {
            name: value for name, value in events.items() if not (isinstance(value, float | int) and 0 < value < 1e38)
        }
        if bad:
            raise InvalidDataError(
                f"MetaConfig(events=...) has {bad}. Give each a strength above 0; give refusals a label of -1 in the log instead."
            )
