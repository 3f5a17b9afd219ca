"""mecold: few-shot recommendations for cold users and cold items.

>>> recommender = Recommender(rng=0)
>>> recommender.fit_meta("interactions.parquet", "items.parquet")
>>> user = recommender.adapt_user(["B0001", "B0002"])
>>> recommender.recommend(user, k=10)
"""

import mecold.threads  # noqa: F401 isort: split  # before the libraries that it speaks to
from mecold.audience import Audiences
from mecold.data.catalog import Catalog, TextTemplate
from mecold.encode.encoder import Encoder, PrecomputedEncoder, TextEncoder
from mecold.errors import (
    DataWarning,
    EncoderError,
    ForkError,
    InvalidDataError,
    MecoldError,
    ModelFileError,
    NotFittedError,
    UnknownItemError,
    UnknownUserError,
)
from mecold.heads.preference import HeadConfig
from mecold.meta.classes import ClassConfig
from mecold.meta.config import MetaConfig, TrainConfig
from mecold.recommender import Recommender
from mecold.report import FitReport, Tracker
from mecold.space.channels.host import ItemFactors
from mecold.space.settings import FactorConfig
from mecold.tasks.ads import ClickModel
from mecold.tasks.behaviour import BehaviourTask
from mecold.tasks.behaviour_state import BehaviourState
from mecold.tasks.class_state import Classified, ClassState, Label
from mecold.tasks.classify import ItemClassifier
from mecold.tasks.past import past_behaviours, past_tastes, user_features
from mecold.types import Explanation, Interaction, ItemId, Observed, Recommendation, Synced, UserState
from mecold.version import __version__

__all__ = [
    "Audiences",
    "BehaviourState",
    "BehaviourTask",
    "Catalog",
    "ClassConfig",
    "ClassState",
    "Classified",
    "ClickModel",
    "DataWarning",
    "Encoder",
    "EncoderError",
    "Explanation",
    "FactorConfig",
    "FitReport",
    "ForkError",
    "HeadConfig",
    "Interaction",
    "InvalidDataError",
    "ItemClassifier",
    "ItemFactors",
    "ItemId",
    "Label",
    "MecoldError",
    "MetaConfig",
    "ModelFileError",
    "NotFittedError",
    "Observed",
    "PrecomputedEncoder",
    "Recommendation",
    "Recommender",
    "Synced",
    "TextEncoder",
    "TextTemplate",
    "Tracker",
    "TrainConfig",
    "UnknownItemError",
    "UnknownUserError",
    "UserState",
    "__version__",
    "past_behaviours",
    "past_tastes",
    "user_features",
]
