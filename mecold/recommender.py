"""The face: ids in, ids out. The only stateful object; it holds a trained model and one shelf of items at a time.

A reader takes the shelf once per call; writers prepare a new one under a lock and swap it in. Users are not kept:
`adapt_user` returns a `UserState` that belongs to the caller.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from mecold.answers import Asker, about, alike, explained, listed
from mecold.data.archive import Archive
from mecold.data.attributes import one_user
from mecold.data.catalog import Catalog, TextTemplate
from mecold.data.events import EventRule
from mecold.data.frames import Columns, FrameLike
from mecold.data.history import plain_text, read_history
from mecold.data.interactions import Interactions, OnUnknown
from mecold.data.known import known_in
from mecold.day_one import opened, prior_of
from mecold.encode.encoder import Encoder
from mecold.encode.taught import taught_by
from mecold.meta.config import MetaConfig
from mecold.meta.fit import fit
from mecold.meta.ratings import learn_ratings
from mecold.model import Model, Ratings, axes_of
from mecold.rating import foretold
from mecold.reaching import Reaching
from mecold.report import FitReport, Recorder, Tracker
from mecold.rules import Groups, ItemsOrPairs, Named, Rules, leaving, rerank_of
from mecold.serving import check_state, chunks, finder, ranked_frame, states_of, with_seen
from mecold.space.channels.host import ItemFactors
from mecold.space.far import tell_far
from mecold.space.shelf import Shelf
from mecold.types import Explanation, Interaction, ItemId, Recommendation, UserState
from mecold.values import flag, whole


class Recommender(Reaching):
    """Few-shot recommendations for users and items that the model has never seen.

    Args:
        encoder: turns item texts into vectors; the default `TextEncoder` (all-MiniLM-L6-v2) where None.
        config: settings of the meta-learning.
        template: which item columns make the text.
        index: how items are searched: `"auto"` (exactly up to 30,000 items and on a GPU, else in FAISS's cells), `"exact"`,
            `"flat"`, `"hnsw"`, or a FAISS factory string such as `"IVF256,Flat"`.
        device: where training and scoring run: `"auto"`, `"cpu"`, `"cuda"`, ... (see `mecold.devices`).
        rng: seed or generator of everything random.
        progress: show progress bars.
    """

    # ---- learning

    @classmethod
    def from_items(
        cls,
        items: FrameLike,
        *,
        prior: "Recommender | str | Path | None" = None,
        encoder: Encoder | None = None,
        config: MetaConfig | None = None,
        template: TextTemplate | None = None,
        item_columns: Columns | None = None,
        index: str = "auto",
        device: str = "auto",
        rng: int | np.random.Generator | None = None,
        progress: bool = False,
    ) -> "Recommender":
        """A recommender for a shop that has items and no log yet; `fit_meta` makes a usual one of it. See docs/day_one.md.

        Items are known by their texts alone; a user of whom nothing is known gets the order of the catalogue.

        Args:
            items: frame or path as in `fit_meta`.
            prior: a model of another shop, or its folder: what a user's items say, by their number, comes from there. None
                takes numbers that were averaged over several shops.
            encoder: as for the class, and so is the rest.
            config: settings of the fit to come.
            template: which item columns make the text.
            item_columns: canonical name -> the caller's name.
            index: how the items are searched.
            device: where training and scoring run.
            rng: seed or generator of everything random in the fit to come.
            progress: show progress bars.

        Raises:
            InvalidDataError: on items that cannot be used.
            ModelFileError: if the prior's folder holds no whole model.
            EncoderError: if the encoder cannot be found or has no vector for a text.
        """
        made = cls(encoder, config=config, template=template, index=index, device=device, rng=rng, progress=progress)
        learned = prior._ready()[0] if isinstance(prior, Recommender) else prior_of(prior)
        catalog = Catalog.read(items, template=made.template, columns=item_columns)
        vectors, notes = made._told(catalog)
        encoder_now = made._known_encoder().fingerprint
        made._state = opened(catalog, vectors, learned, made.config, encoder_now, index, notes)
        made.template = replace(made.template, fields=catalog.fields)
        return made

    def fit_meta(
        self,
        interactions: FrameLike,
        items: FrameLike,
        *,
        attributes: FrameLike | None = None,
        context: Sequence[str] = (),
        factors: ItemFactors | None = None,
        interaction_columns: Columns | None = None,
        item_columns: Columns | None = None,
        on_unknown: OnUnknown = "raise",
        ratings: bool = True,
        trackers: Sequence[Tracker] = (),
    ) -> FitReport:
        """Meta-learn from a log; replaces what was learned before only when it has succeeded.

        Args:
            interactions: frame or path: `user_id`, `item_id`, optional `timestamp` or `position`, `rating`, `weight`,
                `label`, `event`.
            items: frame or path: `item_id` and text columns.
            attributes: frame or path of what is known of users beside what they did: `user_id`, and columns of numbers,
                names or texts. Lists for users without a history then go by them.
            context: columns of the interactions that say what the moment was like, such as `("device", "weekday")`. They
                are attributes too, whose values change: a call says what they are now.
            factors: item factors of a trained host model, used in place of the symmetric channel.
            interaction_columns: canonical name -> the caller's name, for the log.
            item_columns: canonical name -> the caller's name, for the items.
            on_unknown: what to do with interactions of items that are not in `items`.
            ratings: learn what `predict_rating` needs, where the log has ratings; False spares the time. What ranks is the same.
            trackers: hear of every epoch (`mecold.tracking`).

        Returns:
            Curves and notes of the fit; also written next to the model by `save`, as JSON lines.

        Raises:
            InvalidDataError: on frames that cannot be used.
            UnknownItemError: on unknown items under `on_unknown="raise"`.
            EncoderError: if the encoder cannot be found or has no vector for a text.

        Warns:
            DataWarning: what was set aside in the frames, and how many items have a text that the encoder cannot read.
        """
        catalog = Catalog.read(items, template=self.template, columns=item_columns)
        rule = EventRule(self.config.predict, self.config.events or {})
        log = Interactions.read(
            interactions, catalog, columns=interaction_columns, on_unknown=on_unknown, events=rule, context=context
        )  # fmt: skip
        vectors, notes = self._told(catalog)
        recorder = Recorder(FitReport(notes=notes), trackers, self.progress)
        log, known = known_in(log, attributes, self._vectors)
        taught = taught_by(self._known_encoder(), catalog.texts)
        found = fit(
            log, catalog, vectors, self.config, factors=factors, groups=known.sizes,
            taught=taught, rng=self._rng, recorder=recorder,
        )  # fmt: skip
        every = torch.arange(len(found.space), device=self._device)
        # a generator of its own: what ranks is the same with ratings and without
        own = self._rng.spawn(1)[0]
        rating = learn_ratings(log, found.space.text_of(every), own, recorder, taught, wanted=ratings)
        rated = Ratings.of(rating, catalog.ids.to_list())
        encoder, record = self._known_encoder().fingerprint, recorder.report.to_jsonl()
        model = Model(found.basis, found.head, encoder, axes_of(found.space), record, log.events, known, rated)
        shelf = Shelf.of(catalog, found.space, self._kind)
        archive = Archive.of(log, found.labels, catalog.ids, found.start.numpy())
        with self._renewal, self._lock:
            self._state, self._archive = (model, shelf), archive
            # later items are described by the same columns
            self.template = replace(self.template, fields=catalog.fields)
        return recorder.report

    # ---- adapting

    def adapt_user(
        self,
        history: Iterable[ItemId | Interaction],
        *,
        attributes: Mapping[str, Any] | None = None,
        on_unknown: OnUnknown = "raise",
    ) -> UserState:
        """Adapt to one user; pure, nothing is kept. An empty history gives the zero-shot user.

        Args:
            history: item ids or `Interaction`s, oldest first; with times on all of them, in any order. Of repeated
                items the first counts; with kinds of events the last, as the strongest of them. A thing that is not in the
                catalogue can be described, `Interaction(text="...")`: it is read as a new item would be, and not added.
            attributes: what else is known of the user, by name as in the fit; what is left out, or None, is not known.
            on_unknown: `"drop"` leaves out items that are not in the catalogue; they still count as seen.

        Raises:
            UnknownItemError: naming the unknown items.
            InvalidDataError: on labels or weights that are not finite numbers, or times on some rows only.
            EncoderError: if there are texts, and the encoder is not the model's.
        """
        model, shelf = self._ready()
        asker = self._read(model, shelf, history, attributes, on_unknown)
        return next(states_of(model, shelf, asker.support, [asker.unknown], asker.vectors))

    def adapt_users(
        self,
        histories: FrameLike,
        *,
        attributes: FrameLike | None = None,
        columns: Columns | None = None,
        on_unknown: OnUnknown = "raise",
    ) -> dict[ItemId, UserState]:
        """Adapt to every user of a frame, in batches.

        Args:
            histories: frame or path as in `fit_meta`; without a `label` column, ratings below `MetaConfig.liked_from` count
                as dislikes.
            attributes: frame or path of what else is known of users, as in `fit_meta`.
            columns: canonical name -> the caller's name.
            on_unknown: what to do with unknown items.

        Returns:
            State by user id, in order of first appearance by id.
        """
        model, shelf = self._ready()
        states: dict[ItemId, UserState] = {}
        log = Interactions.read(
            histories, shelf.catalog, columns=columns, on_unknown=on_unknown, may_be_empty=True, events=model.events
        )  # fmt: skip
        tell_far(shelf.space, log.timestamps)
        if (known := self._known(model, shelf, attributes, log)) is not None:
            log = replace(log, groups=known(log.users))
        labels = log.labels_from(self.config.liked_from)
        for some in chunks(log):
            users = log.users[some].to_list()
            unknown = [log.unknown.get(user, ()) for user in users]
            found = states_of(model, shelf, log.histories(labels, some, rated=True), unknown)
            states.update(zip(users, found, strict=True))
        return states

    # ---- recommending

    def recommend(
        self,
        user: UserState,
        k: int = 10,
        *,
        exclude: Iterable[ItemId] = (),
        among: Iterable[ItemId] | None = None,
        include_seen: bool = False,
        diversity: float = 0.0,
        groups: Groups | None = None,
        per_group: int | None = None,
    ) -> list[Recommendation]:
        """The k best items for a user: exactly k while k are left, best first, ties in catalogue order.

        With `diversity` or `groups` the list is picked out of a longer one (`mecold.space.rerank`): in the order of picking,
        which need not be that of the scores.

        Args:
            user: from `adapt_user` or `adapt_users` of this model.
            k: how many; at least 1.
            exclude: items to leave out; unknown ones are no error, they are out already.
            among: recommend only these.
            include_seen: let items of the support come back; how high is learned, where the log shows what comes again.
            diversity: 0 for the best scores, up to 1 for items whose texts are as unlike as can be.
            groups: item -> group (brand, author, parent product), or a table of `item_id` and one more column; an item
                without a group is not capped. For one user after another take a mapping: of it only candidates are looked up.
            per_group: at most so many of one group; 1 where None.

        Raises:
            InvalidDataError: if k is no positive integer, the state comes from another model, or groups cannot be used.
            UnknownItemError: if `among` names unknown items.

        Warns:
            DataWarning: if `exclude` matches nothing.
        """
        model, shelf = self._ready()
        k = whole(k, "k")
        check_state(user, model, shelf.space.dim)
        vectors = shelf.vectors_of(user)
        rerank = rerank_of(diversity, groups, per_group, shelf.catalog)
        out, only = leaving(exclude, shelf.catalog), None if among is None else shelf.catalog.checked(among, "among")
        find = finder(shelf, vectors, shelf.there([*out, *user.seen]), only)
        if flag(include_seen, "include_seen"):
            find = with_seen(find, shelf, vectors, user, out, only)
        return listed(shelf, find(None, k) if rerank is None else rerank.best(shelf.space, k, find))

    def recommend_batch(
        self,
        histories: FrameLike,
        k: int = 10,
        *,
        users: Iterable[ItemId] = (),
        attributes: FrameLike | None = None,
        columns: Columns | None = None,
        on_unknown: OnUnknown = "raise",
        exclude: ItemsOrPairs = (),
        among: ItemsOrPairs | None = None,
        include_seen: bool = False,
        diversity: float = 0.0,
        groups: Groups | None = None,
        per_group: int | None = None,
    ) -> pl.DataFrame:
        """Adapt to and recommend for every user of a frame, in bounded memory.

        Args:
            histories: frame or path as in `adapt_users`.
            k: how many per user.
            users: further users without any history, who get the zero-shot list.
            attributes: frame or path of what else is known of users, as in `fit_meta`.
            columns: canonical name -> the caller's name.
            on_unknown: what to do with unknown items.
            exclude: items that nobody gets; or a table of `user_id` and `item_id`, what each user must not get, where
                users who have no row lose nothing. Unknown items are no error, they are out already.
            among: recommend only these; or a table of `user_id` and `item_id`, all that each user may get, where users who
                have no row get nothing.
            include_seen: let items of the support come back.
            diversity: as in `recommend`, and so are the next two.
            groups: item -> group, or a table of `item_id` and one more column.
            per_group: at most so many of one group; 1 where None.

        Returns:
            A frame with `user_id`, `rank` (from 1), `item_id`, `score`; who gets nothing has no row.

        Raises:
            InvalidDataError: if k is no positive integer, or the histories, the tables or the groups cannot be used.
            UnknownItemError: if `among` names unknown items, or the histories do under `on_unknown="raise"`.

        Warns:
            DataWarning: if `exclude` matches nothing.
        """
        model, shelf = self._ready()
        k = whole(k, "k")
        log = Interactions.read(
            histories, shelf.catalog, columns=columns, on_unknown=on_unknown, may_be_empty=True, events=model.events
        )  # fmt: skip
        tell_far(shelf.space, log.timestamps)
        types = {"item_id": shelf.catalog.dtype} | ({"user_id": log.users.dtype} if len(log) else {})
        allowed = None if among is None else Named.read(among, "among", types)
        rerank = rerank_of(diversity, groups, per_group, shelf.catalog)
        rules = Rules(Named.read(exclude, "exclude", types), allowed, flag(include_seen, "include_seen"), rerank)
        known = self._known(model, shelf, attributes, log)
        return ranked_frame(model, shelf, log, users, k, self.config.liked_from, rules, known)

    def scores(self, user: UserState, items: Iterable[ItemId]) -> np.ndarray:
        """Scores of given items, for a ranking of one's own; a score compares with others of the same user only.

        Args:
            user: from `adapt_user` or `adapt_users` of this model.
            items: the items, those of the support allowed.

        Returns:
            Array of shape `(items,)`, float32, in the order given.

        Raises:
            InvalidDataError: if the state comes from another model.
            UnknownItemError: naming items that are not in the catalogue.
        """
        model, shelf = self._ready()
        check_state(user, model, shelf.space.dim)
        rows = shelf.catalog.rows(shelf.catalog.checked(items, "items"), "the items")
        if not len(rows):
            return np.empty(0, np.float32)
        wanted = torch.from_numpy(rows).to(self._device)
        found: np.ndarray = shelf.space.scores_among(wanted, shelf.vectors_of(user))[0].cpu().numpy()
        return found

    def predict_rating(self, user: UserState, items: Iterable[ItemId]) -> pl.DataFrame:
        """What a user will say of items, on the scale of the log's ratings, and how sure that is.

        Ratings of the support are read, `Interaction(item, rating=4.0)`; who has none gets what a user is expected to say of
        whom nothing is known. Items that nobody has rated go by their texts. See docs/ratings.md.

        Args:
            user: from `adapt_user` or `adapt_users` of this model.
            items: the items, those of the support allowed.

        Returns:
            A frame in the order given: `item_id`; `mean` and `std`, expected value and standard deviation; `low`, `median`,
            `high`, below which are a tenth, a half and nine tenths of such ratings. Of these `mean` has the smallest squared
            error, `median` the smallest absolute error.

        Raises:
            InvalidDataError: if the state comes from another model, or the model was fitted without ratings.
            UnknownItemError: naming items that are not in the catalogue.
        """
        model, shelf = self._ready()
        check_state(user, model, shelf.space.dim)
        return foretold(model, shelf, user, items)

    def similar_items(
        self,
        items: ItemId | Iterable[ItemId] = (),
        k: int = 10,
        *,
        text: str | None = None,
        exclude: Iterable[ItemId] = (),
        among: Iterable[ItemId] | None = None,
    ) -> list[Recommendation]:
        """Items wanted by who has this one: what the head reads of it against every item, popularity left out.

        Of many items, such as a basket, a score is the sum of what each of them says; none of them is in the list.

        Args:
            items: an item, or many of them.
            k: how many.
            text: describes a thing that is not in the catalogue, alone or beside items; read as a new item would be, and not
                added. It takes the encoder of the fit.
            exclude: items to leave out; unknown ones are no error, they are out already.
            among: only these.

        Raises:
            UnknownItemError: if one of the items, or of `among`, is not in the catalogue.
            InvalidDataError: if there is neither an item nor a text, or k is no positive integer.
            EncoderError: if there is a text, and the encoder is not the model's.
        """
        model, shelf = self._ready()
        k = whole(k, "k")
        some = shelf.catalog.checked([items] if isinstance(items, str | int | np.integer) else items, "items")
        rows = np.unique(shelf.catalog.rows(some, "the items"))
        texts = () if text is None else (plain_text(text, "similar_items"),)
        both = alike(model, shelf, rows, self._guests(model, shelf, texts))
        hidden = np.union1d(rows, shelf.there(leaving(exclude, shelf.catalog)))
        find = finder(shelf, both, hidden, None if among is None else shelf.catalog.checked(among, "among"))
        return listed(shelf, find(None, k))

    def explain(
        self,
        history: Iterable[ItemId | Interaction],
        item: ItemId,
        *,
        attributes: Mapping[str, Any] | None = None,
        on_unknown: OnUnknown = "raise",
    ) -> Explanation:
        """What each support item contributes to the score of an item; exact, since rows add up in the user vector.

        A contribution is what the score would lose if the user had seen that support item without an opinion: nothing for
        items older than the newest 20, which are not read.

        Args:
            history: as for `adapt_user` (a state does not keep its support's labels).
            item: the item to explain.
            attributes: what else is known of the user; what it adds is in the base.
            on_unknown: what to do with unknown items in the history.
        """
        model, shelf = self._ready()
        asker = self._read(model, shelf, history, attributes, on_unknown)
        row = int(shelf.catalog.rows(shelf.catalog.checked([item], "item"), "the items")[0])
        return explained(model, shelf, asker, row)

    def info(self) -> dict[str, Any]:
        """What this recommender is: sizes, channels, encoder, index, fingerprint, notes of the fit."""
        return about(*self._ready(), self._archive) | {"index": self._kind, "device": str(self._device)}

    # ---- inside

    def _read(
        self, model: Model, shelf: Shelf, history: Iterable[ItemId | Interaction], attributes: Mapping[str, Any] | None,
        on_unknown: OnUnknown,
    ) -> Asker:  # fmt: skip
        events = model.events if model.events.names else None
        told = read_history(history, shelf.catalog, on_unknown, events, self.config.liked_from)
        tell_far(shelf.space, told.support.times.numpy(), 4)
        support, texts = told.support, self._guests(model, shelf, told.texts)
        if attributes is not None:
            groups = model.attributes.groups(one_user(attributes), self._vectors_of(model, shelf))
            support = replace(support, groups=torch.from_numpy(groups))
        return Asker(support, told.unknown, told.texts, texts)
