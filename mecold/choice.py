"""Which encoder a shop should take: a trained one, the one that it was trained from, or both."""

from collections.abc import Mapping

import numpy as np
import torch

from mecold.data.catalog import Catalog, TextTemplate
from mecold.data.events import EventRule
from mecold.data.frames import Columns, FrameLike
from mecold.data.interactions import Interactions, OnUnknown
from mecold.devices import device_of
from mecold.encode.beside import encoded
from mecold.encode.encoder import Encoder
from mecold.encode.taught import taught_by
from mecold.errors import InvalidDataError
from mecold.meta.choice import Choice, best_of
from mecold.meta.config import MetaConfig


def choose_encoder(
    candidates: Mapping[str, Encoder],
    interactions: FrameLike,
    items: FrameLike,
    *,
    config: MetaConfig | None = None,
    template: TextTemplate | None = None,
    interaction_columns: Columns | None = None,
    item_columns: Columns | None = None,
    on_unknown: OnUnknown = "raise",
    rng: int = 0,
    device: str = "auto",
    progress: bool = False,
) -> Choice:
    """Fit the recommender on the texts of each encoder, and say which serves new items best.

    Args:
        candidates: encoders by name. The first is taken unless another gains 2 % on items treated as new, and loses no more
            than .5 % for users who were held out.
        interactions: frame or path of the log, as for `Recommender.fit_meta`.
        items: frame or path of the items.
        config: settings of the fits.
        template: which item columns make the text.
        interaction_columns: canonical name -> the caller's name, for the log.
        item_columns: canonical name -> the caller's name, for the items.
        on_unknown: what to do with interactions of items that are not in `items`.
        rng: seed of the fits.
        device: a torch device, or `"auto"`.
        progress: show progress bars while texts are encoded.

    Returns:
        The choice; it takes one fit for each candidate.

    Raises:
        InvalidDataError: if there is no candidate, without calibration, or on frames that cannot be used.
        EncoderError: if an encoder has no vector for a text.
    """
    if not candidates:
        raise InvalidDataError("candidates names no encoder.")
    config, where = config or MetaConfig(), device_of(device)
    if not config.training.calibrate:
        raise InvalidDataError("TrainConfig(calibrate=False) treats no item as new; there is nothing to choose by.")
    catalog = Catalog.read(items, template=template or TextTemplate(), columns=item_columns)
    log = Interactions.read(
        interactions, catalog, columns=interaction_columns, on_unknown=on_unknown,
        events=EventRule(config.predict, config.events or {}),
    )  # fmt: skip
    vectors = {
        name: torch.from_numpy(own).to(where)
        for name, own in encoded(candidates, catalog.texts, progress=progress).items()
    }
    taught = np.any([taught_by(encoder, catalog.texts) for encoder in candidates.values()], axis=0)
    return best_of(vectors, log, catalog, config, taught=taught, seed=rng)
