"""Tomorrow's clicks: a model goes on learning from what users do, and forgets users, without a fit.

Of what is learned from a log only the head takes long, and it changes slowly. What is counted is counted at once; factors and
neighbour lists are made anew when asked for. The log is kept with the model for that.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from mecold.data.archive import Archive, rows_of
from mecold.data.frames import Columns, FrameLike
from mecold.data.interactions import Interactions, OnUnknown
from mecold.errors import InvalidDataError, UnknownUserError, few
from mecold.forks import check_frames
from mecold.keeping import Keeping
from mecold.renewing import renewed
from mecold.space.far import tell_far
from mecold.store import journal
from mecold.types import ItemId, Observed
from mecold.values import path


class Observing(Keeping):
    """Learns from what comes after the fit."""

    def observe(
        self,
        interactions: FrameLike,
        *,
        attributes: FrameLike | None = None,
        columns: Columns | None = None,
        on_unknown: OnUnknown = "raise",
        folder: str | Path | None = None,
    ) -> Observed:
        """Take in new interactions of known and of new users, in a moment; states of users stay valid.

        Counts, popularity, trends and what groups of users want are as of now when this returns. What goes together, and
        items that nobody had touched, are as before until `refresh`. Readers go on reading.

        Args:
            interactions: frame or path as in `fit_meta`, with the same columns that tell of times, labels and contexts. A rating
                below `MetaConfig.liked_from` is a dislike, as in the fit.
            attributes: frame or path of what is known of users, as in `fit_meta`.
            columns: canonical name -> the caller's name.
            on_unknown: what to do with interactions of items that are not in the catalogue; dropped ones are lost.
            folder: of this model as it was saved. The interactions are on disk, in the folder's journal, before anything else
                happens, and `load` reads them. None: they are in memory until `save`.

        Returns:
            How many there were, of how many new users, and how many wait for `refresh`.

        Raises:
            InvalidDataError: if they cannot be used, were observed before, or the model has no log; nothing is changed then.
            UnknownItemError: on unknown items under `on_unknown="raise"`.
            ModelFileError: if the folder is not of this model, or cannot be written.
        """
        (model, shelf), archive = self._ready(), self._logged()
        log = Interactions.read(
            interactions, shelf.catalog, columns=columns, on_unknown=on_unknown, may_be_empty=True, events=model.events,
            context=archive.context, users=archive.log.users.dtype, order=archive.log.order,
        )  # fmt: skip
        if self.config.liked_from is not None and log.ratings is None and log.labels is None and len(log.items):
            raise InvalidDataError(
                f"The model takes ratings from {self.config.liked_from:g} for likings (MetaConfig.liked_from), and the "
                "interactions have neither `rating` nor `label`. Map yours: columns={'rating': <your column>}."
            )
        tell_far(shelf.space, log.timestamps)
        log = self._with_groups(log, attributes)
        batch = rows_of(log, shelf.catalog.ids, log.labels_from(self.config.liked_from))
        with self._lock:
            archive = self._logged()
            if batch.is_empty() or (now := archive.observed(batch)) is archive:
                return Observed(batch.height, 0, archive.waiting.height)
            users = batch["user_id"].unique()
            strangers = users.filter(~users.is_in(archive.waiting["user_id"].implode()))
            new_users = len(strangers) - len(archive.places(strangers))
            state = self._counted(now)
            if folder is not None:
                journal(path(folder, "folder"), now, now.waiting[archive.waiting.height :])
            self._state, self._archive = state, now
        return Observed(batch.height, new_users, now.waiting.height)

    def refresh(self) -> None:
        """Make factors, neighbour lists and scales anew, of all that was read and observed, with the head as it was learned.

        The item space is then what a fit of all of it would make with the same texts and the same head. States made before
        are refused: adapt their users again. It takes a part of a fit's time; readers go on reading, and `observe` goes on, too
        (call this in a thread of its own), while changes of the catalogue wait.

        Raises:
            InvalidDataError: if the model has no log, or the log has become too small; nothing is changed then.
        """
        check_frames("A refresh")
        with self._renewal:
            self._renew(self._logged())

    def forget_user(self, users: ItemId | Iterable[ItemId]) -> None:
        """Take out everything that users did: of the log at once, and by `refresh` out of all that was made of it.

        What is left of them is their part in the head, some dozens of numbers that were learned from all users together.
        A folder, its journal included, forgets them by `save`.

        Args:
            users: a user, or many of them, which takes no longer.

        Raises:
            UnknownUserError: naming those who are not in the log; none is forgotten then.
            InvalidDataError: if the model has no log, or too little of it would be left; nothing is changed then.
        """
        check_frames("Forgetting users")
        kind = self._logged().log.users.dtype
        given = (
            [users]
            if isinstance(users, str | int | np.integer)
            else list(users)
            if isinstance(users, Iterable)
            else None
        )
        if given is None or any(
            isinstance(user, bool) or not isinstance(user, str | int | np.integer) for user in given
        ):
            raise InvalidDataError(f"{users!r:.60} are no ids of users; pass one, or many of them.")
        try:
            leaving = pl.Series("user_id", given, dtype=kind, strict=True)
        except (TypeError, pl.exceptions.PolarsError) as error:
            raise InvalidDataError(f"User ids of the model's log are {kind}; these are {few(given)}.") from error
        if not given:
            return
        with self._renewal:
            archive = self._logged()
            if len(missing := leaving.filter(~leaving.is_in(archive.users.implode()))):
                raise UnknownUserError(
                    f"{len(missing):,} of {len(leaving):,} users are not in the model's log: {few(missing.to_list())}. "
                    "Nobody was forgotten."
                )
            self._renew(archive, leaving)

    @property
    def user_type(self) -> Any:
        """Type of the ids of users in the model's log.

        Raises:
            InvalidDataError: if the model has no log.
        """
        return self._logged().log.users.dtype

    # ---- inside

    def _renew(self, before: Archive, leaving: pl.Series | None = None) -> None:
        """Replace log and item space; what is observed meanwhile waits on."""
        model, shelf = self._ready()
        merged = before.merged()
        merged = merged if leaving is None else merged.without_users(leaving)
        with torch.inference_mode(False), torch.no_grad():
            state = renewed(model, shelf.packed(), merged, self.config)
        with self._lock:
            now = self._logged()
            waiting = now.waiting[before.waiting.height :]
            if leaving is not None:
                waiting = waiting.filter(~pl.col("user_id").is_in(leaving.implode()))
            self._state, self._surveyed = state, None
            self._archive = merged.later(waiting, now.batches[len(before.batches) :])
            if self._archive.waiting.height:
                self._state = self._counted(self._archive)

    def _logged(self) -> Archive:
        self._ready()
        if self._archive is None:
            raise InvalidDataError(
                "This model has no log to go on with: it was saved without one, loaded with mapped=True, or made for a shop that "
                "had none. Load it whole; or fit a model, and save it with its log."
            )
        return self._archive.settled()

    def _with_groups(self, log: Interactions, attributes: FrameLike | None) -> Interactions:
        """The log with the groups of its users and moments, as far as the model's log has such."""
        model, shelf = self._ready()
        kept, width = self._logged().log, len(model.attributes.columns)
        known = self._known(model, shelf, attributes, log)
        told = np.full((len(log), width), -1, np.int64) if known is None else known(log.users)
        moments = None if log.context is None else model.attributes.groups(log.context, self._vectors_of(model, shelf))
        return replace(log, groups=None if kept.groups is None else told, moments=moments)
