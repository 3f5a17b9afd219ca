"""The face: ids in, ids out. The only stateful object; it holds a trained model and one shelf of items at a time.

A reader takes the shelf once per call; writers prepare a new one under a lock and swap it in. Users are not kept:
`adapt_user` returns a `UserState` that belongs to the caller.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from mecold.audience import Audiences
from mecold.data.attributes import Attributes, Encode, of_these, one_user, read_attributes
from mecold.data.catalog import Catalog
from mecold.data.events import EventRule
from mecold.data.frames import Columns, FrameLike
from mecold.data.histories import Histories
from mecold.data.history import read_history
from mecold.data.interactions import Interactions, OnUnknown
from mecold.encode.encoder import Encoder
from mecold.encode.taught import taught_by
from mecold.errors import InvalidDataError
from mecold.meta.fit import fit
from mecold.meta.ratings import learn_ratings
from mecold.model import Model, Ratings, axes_of
from mecold.rating import foretold
from mecold.report import FitReport, Recorder, Tracker
from mecold.rules import Groups, ItemsOrPairs, Named, Rules, leaving, rerank_of
from mecold.sealed import bytes_of, folder_of
from mecold.serving import adapt, check_k, check_state, chunks, finder, ranked_frame, states_of, with_seen
from mecold.space.channels.host import ItemFactors
from mecold.space.index import Ranked
from mecold.space.profiles import had, length_one, sides_of
from mecold.space.shelf import Shelf
from mecold.space.space import UserVectors
from mecold.space.statistics import Kept
from mecold.stock import Stock
from mecold.store import load_model, save_model
from mecold.types import Explanation, Interaction, ItemId, Recommendation, UserState


class Recommender(Stock):
    """Few-shot recommendations for users and items that the model has never seen.

    Args:
        encoder: turns item texts into vectors; the default `TextEncoder` (all-MiniLM-L6-v2) where None.
        config: settings of the meta-learning.
        template: which item columns make the text.
        index: `"auto"` (exact), `"flat"`, `"hnsw"`, or a FAISS factory string such as `"IVF256,Flat"`.
        device: where training and scoring run: `"auto"`, `"cpu"`, `"cuda"`, ... (see `mecold.devices`).
        rng: seed or generator of everything random.
        progress: show progress bars.
    """

    # ---- learning

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
        vectors = self._encode(catalog)
        recorder = Recorder(trackers=trackers, progress=self.progress)
        log, known = self._known_in(log, attributes)
        taught = taught_by(self._known_encoder(), catalog.texts)
        found = fit(
            log, catalog, vectors, self.config, factors=factors, groups=known.sizes,
            taught=taught, rng=self._rng, recorder=recorder,
        )  # fmt: skip
        every = torch.arange(len(found.space), device=self._device)
        # a generator of its own: what ranks is the same with ratings and without
        rating = learn_ratings(log, found.space.text_of(every), self._rng.spawn(1)[0], recorder, taught)
        rated = (
            None if rating is None else Ratings(rating, {item: row for row, item in enumerate(catalog.ids.to_list())})
        )
        encoder, record = self._known_encoder().fingerprint, recorder.report.to_jsonl()
        model = Model(found.basis, found.head, encoder, axes_of(found.space), record, log.events, known, rated)
        shelf = Shelf.of(catalog, found.space, self._kind)
        with self._lock:
            self._state = (model, shelf)
            self._statistics = Kept(catalog.ids, found.statistics)
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
                items the first counts; with kinds of events the last, as the strongest of them.
            attributes: what else is known of the user, by name as in the fit; what is left out, or None, is not known.
            on_unknown: `"drop"` leaves out items that are not in the catalogue; they still count as seen.

        Raises:
            UnknownItemError: naming the unknown items.
            InvalidDataError: on labels or weights that are not finite numbers, or times on some rows only.
        """
        model, shelf = self._ready()
        support, unknown = self._read(model, shelf, history, attributes, on_unknown)
        return next(states_of(model, shelf, support, [unknown]))

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
        check_k(k)
        check_state(user, model, shelf.space.dim)
        vectors = shelf.vectors_of(user)
        rerank = rerank_of(diversity, groups, per_group, shelf.catalog)
        out, only = leaving(exclude, shelf.catalog), None if among is None else shelf.catalog.checked(among, "among")
        find = finder(shelf, vectors, shelf.there([*out, *user.seen]), only)
        if include_seen:
            find = with_seen(find, shelf, vectors, user, out, only)
        return _listed(shelf, find(None, k) if rerank is None else rerank.best(shelf.space, k, find))

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
        check_k(k)
        log = Interactions.read(
            histories, shelf.catalog, columns=columns, on_unknown=on_unknown, may_be_empty=True, events=model.events
        )  # fmt: skip
        types = {"item_id": shelf.catalog.dtype} | ({"user_id": log.users.dtype} if len(log) else {})
        allowed = None if among is None else Named.read(among, "among", types)
        rerank = rerank_of(diversity, groups, per_group, shelf.catalog)
        rules = Rules(Named.read(exclude, "exclude", types), allowed, include_seen, rerank)
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
        items: ItemId | Iterable[ItemId],
        k: int = 10,
        *,
        exclude: Iterable[ItemId] = (),
        among: Iterable[ItemId] | None = None,
    ) -> list[Recommendation]:
        """Items wanted by who has this one: what the head reads of it against every item, popularity left out.

        Of many items, such as a basket, a score is the sum of what each of them says; none of them is in the list.

        Args:
            items: an item, or many of them.
            k: how many.
            exclude: items to leave out; unknown ones are no error, they are out already.
            among: only these.

        Raises:
            UnknownItemError: if one of the items, or of `among`, is not in the catalogue.
            InvalidDataError: if there is no item, or k is no positive integer.
        """
        model, shelf = self._ready()
        check_k(k)
        some = shelf.catalog.checked([items] if isinstance(items, str | int | np.integer) else items, "items")
        rows = np.unique(shelf.catalog.rows(some, "the items"))
        if not len(rows):
            raise InvalidDataError("There is no item to find similar ones of; name at least one.")
        users = adapt(model, shelf, Histories.padded(rows, np.ones(len(rows), np.int64)))
        vector = users.vector.sum(0, keepdim=True)
        for name, channel in shelf.space.channels.items():
            if channel.traits.reads == "nothing":  # what everybody wants
                vector[:, shelf.space.spans[name]] = 0.0
        both = UserVectors(vector, users.rows.reshape(1, -1), users.trust.reshape(1, -1))
        hidden = np.union1d(rows, shelf.there(leaving(exclude, shelf.catalog)))
        find = finder(shelf, both, hidden, None if among is None else shelf.catalog.checked(among, "among"))
        return _listed(shelf, find(None, k))

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
        support, _ = self._read(model, shelf, history, attributes, on_unknown)
        row = int(shelf.catalog.rows(shelf.catalog.checked([item], "item"), "the items")[0])
        size, labels = int(support.shots), support.labels[0]
        # nothing liked; one item at a time; everything
        variants = torch.cat([torch.zeros_like(labels)[None], torch.diag(labels)[:size], labels[None]])
        many = replace(support.take(torch.zeros(len(variants), dtype=torch.long)), labels=variants)
        wanted = torch.tensor([row], device=self._device)
        scores = shelf.space.scores_among(wanted, adapt(model, shelf, many))[:, 0].cpu().numpy()
        parts = zip(shelf.ids(support.rows[0, :size].numpy()), (scores[1:-1] - scores[0]).tolist(), strict=True)
        ordered = sorted(parts, key=lambda part: -part[1])
        return Explanation(item, float(scores[-1]), float(scores[0]), tuple(ordered))

    def audiences(
        self, histories: FrameLike, *, columns: Columns | None = None, on_unknown: OnUnknown = "raise", rng: int = 0
    ) -> Audiences:
        """Users of a frame, to ask of one item after another who will want it; what tells that is learned from the frame.

        Args:
            histories: frame or path as in `adapt_users`; what is disliked is no sign of wanting.
            columns: canonical name -> the caller's name.
            on_unknown: what to do with unknown items.
            rng: seed of what is rehearsed.

        Raises:
            InvalidDataError: on histories that cannot be used, or of too few users to learn from.
            UnknownItemError: on unknown items under `on_unknown="raise"`.
        """
        return Audiences(self._ready()[1], self._liked(histories, columns, on_unknown), np.random.default_rng(rng))

    def audience(
        self,
        item: ItemId | None = None,
        k: int = 50,
        *,
        histories: FrameLike,
        seeds: Iterable[ItemId] = (),
        columns: Columns | None = None,
        on_unknown: OnUnknown = "raise",
        rng: int = 0,
    ) -> pl.DataFrame:
        """The k users of a frame who will want an item most; see `Audiences.of`, and `audiences` for many items.

        Args:
            item: its id, with or without anybody who has it; None: only seeds tell.
            k: how many.
            histories: users and what they had, as in `audiences`.
            seeds: users of the histories who want it already.
            columns: canonical name -> the caller's name.
            on_unknown: what to do with unknown items.
            rng: seed of what is rehearsed.

        Returns:
            `rank`, `user_id`, `probability`, best first; those who have it already are not among them.

        Raises:
            InvalidDataError: as in `audiences`, or on seeds that are no users of the histories.
            UnknownItemError: as in `audiences`, or if the item is not in the catalogue.
        """
        return self.audiences(histories, columns=columns, on_unknown=on_unknown, rng=rng).of(item, k, seeds=seeds)

    def user_vectors(
        self, histories: FrameLike, *, columns: Columns | None = None, on_unknown: OnUnknown = "raise"
    ) -> pl.DataFrame:
        """What users are like by all that they had, as numbers: features for `BehaviourTask` and for models of one's own.

        Args:
            histories: frame or path as in `adapt_users`.
            columns: canonical name -> the caller's name.
            on_unknown: what to do with unknown items.

        Returns:
            A frame with `user_id` and `vector`, an array of 64 numbers of length 1; all 0 for who had nothing.

        Raises:
            InvalidDataError: on histories that cannot be used.
            UnknownItemError: on unknown items under `on_unknown="raise"`.
        """
        shelf, log = self._ready()[1], self._liked(histories, columns, on_unknown)
        found = length_one(had(log.items, log.offsets, len(shelf.space)) @ sides_of(shelf.space))
        vectors = pl.Series("vector", found, dtype=pl.Array(pl.Float32, found.shape[1]))
        return pl.DataFrame([log.users.alias("user_id"), vectors])

    # ---- keeping

    def save(self, folder: str | Path) -> None:
        """Write the model to a folder: no pickle, checksummed, written beside the target and then renamed."""
        model, shelf = self._ready()
        settings = {"config": asdict(self.config), "template": asdict(self.template), "index": self._kind}
        save_model(Path(folder), model, shelf.packed(), self._statistics, settings)

    @classmethod
    def load(
        cls, folder: str | Path, *, encoder: Encoder | None = None, device: str = "auto", progress: bool = False
    ) -> "Recommender":
        """Read a model that `save` wrote.

        Args:
            folder: the model's folder.
            encoder: needed to add or update items, and for attributes that are texts; must be the one the model was fitted with.
            device: where scoring runs.
            progress: show progress bars.

        Raises:
            ModelFileError: if the folder is missing, damaged, changed or of a newer format.
            EncoderError: if `encoder` is not the one the model was fitted with.
        """
        content = load_model(Path(folder))
        made = cls(
            encoder, config=content.config, template=content.template, index=content.kind, device=device,
            progress=progress,
        )  # fmt: skip
        made._state = content.place(made._device)
        made._statistics = content.statistics
        if encoder is not None:
            made._check_encoder(*made._ready())
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """`pickle`, `copy`, joblib and spawned processes hand it over by the files that `save` writes."""
        own = {"template": self.template, "device": str(self._device), "progress": self.progress}
        files = None if self._state is None else bytes_of(self.save)
        return Recommender._revived, (
            files,
            self._encoder,
            own | {"config": self.config, "index": self._kind},
            self._rng,
        )

    @classmethod
    def _revived(
        cls,
        files: Mapping[str, bytes] | None,
        encoder: Encoder | None,
        own: Mapping[str, Any],
        rng: np.random.Generator,
    ) -> "Recommender":
        made = cls(encoder, **own, rng=rng)
        if files is not None:
            with folder_of(files) as folder:
                content = load_model(folder)
            made._state, made._statistics = content.place(made._device), content.statistics
        return made

    def info(self) -> dict[str, Any]:
        """What this recommender is: sizes, channels, encoder, index, fingerprint, notes of the fit."""
        model, shelf = self._ready()
        return {
            "items": len(shelf.catalog),
            "hidden_items": int(shelf.hidden.sum()),
            "cold_items": int((shelf.space.new & ~shelf.dead).sum()),
            "item_ids": shelf.catalog.kind,
            "dim": shelf.space.dim,
            "channels": {name: channel.width for name, channel in shelf.space.channels.items()},
            "neighbours": shelf.space.lists.rows.shape[1],
            "inner": model.head.config.inner,
            "index": self._kind,
            "encoder": model.encoder,
            "events": list(model.events.names),
            "attributes": {column.name: column.kind for column in model.attributes.columns},
            "model": model.fingerprint,
            "device": str(self._device),
            "notes": model.notes,
        }

    # ---- inside

    def _liked(self, histories: FrameLike, columns: Columns | None, on_unknown: OnUnknown) -> Interactions:
        """Histories without what is disliked."""
        model, shelf = self._ready()
        log = Interactions.read(
            histories, shelf.catalog, columns=columns, on_unknown=on_unknown, may_be_empty=True, events=model.events
        )  # fmt: skip
        return log.where(log.labels_from(self.config.liked_from) > 0)

    def _known_in(self, log: Interactions, attributes: FrameLike | None) -> tuple[Interactions, Attributes]:
        """What a log and a frame say of users and moments, and the log with the groups of both."""
        of_users = None if attributes is None else of_these(read_attributes(attributes, log.users.dtype), log.users)
        known = Attributes.of([frame for frame in (of_users, log.context) if frame is not None], self._vectors)
        groups, moments = (
            None if frame is None else known.groups(frame, self._vectors) for frame in (of_users, log.context)
        )
        return replace(log, groups=groups, moments=moments), known

    def _vectors_of(self, model: Model, shelf: Shelf) -> Encode:
        """The encoder, once it is needed and only if it is the model's."""

        def encode(texts: Sequence[str]) -> np.ndarray:
            self._check_encoder(model, shelf)
            return self._vectors(texts)

        return encode

    def _read(
        self, model: Model, shelf: Shelf, history: Iterable[ItemId | Interaction], attributes: Mapping[str, Any] | None,
        on_unknown: OnUnknown,
    ) -> tuple[Histories, tuple[ItemId, ...]]:  # fmt: skip
        events = model.events if model.events.names else None
        support, unknown = read_history(history, shelf.catalog, on_unknown, events, self.config.liked_from)
        if attributes is None:
            return support, unknown
        groups = model.attributes.groups(one_user(attributes), self._vectors_of(model, shelf))
        return replace(support, groups=torch.from_numpy(groups)), unknown

    def _known(
        self, model: Model, shelf: Shelf, attributes: FrameLike | None, log: Interactions
    ) -> Callable[[pl.Series], np.ndarray] | None:
        """What tells the groups of users; None where nothing is known of anybody."""
        if attributes is None:
            return None
        frame = read_attributes(attributes, log.users.dtype if len(log) else None)
        return lambda users: model.attributes.groups(of_these(frame, users), self._vectors_of(model, shelf))


def _listed(shelf: Shelf, found: Ranked) -> list[Recommendation]:
    """The list of the one user of a search."""
    rows, scores = found.of(0)
    return [Recommendation(item, float(score)) for item, score in zip(shelf.ids(rows), scores, strict=True)]
