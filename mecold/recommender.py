"""The face: ids in, ids out. The only stateful object; it holds a trained model and one shelf of items at a time.

A reader takes the shelf once per call; writers prepare a new one under a lock and swap it in. Users are not kept:
`adapt_user` returns a `UserState` that belongs to the caller.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mecold.data.attributes import Attributes, Encode, of_these, one_user, read_attributes
from mecold.data.catalog import Catalog, TextTemplate
from mecold.data.events import EventRule
from mecold.data.frames import Columns, FrameLike, read_frame
from mecold.data.histories import Histories
from mecold.data.history import read_history
from mecold.data.interactions import Interactions, OnUnknown
from mecold.devices import device_of
from mecold.encode.encoder import Encoder, PrecomputedEncoder, TextEncoder, encode_or_zero
from mecold.encode.unread import warn_unread
from mecold.errors import EncoderError, InvalidDataError, NotFittedError, few
from mecold.meta.config import MetaConfig
from mecold.meta.fit import fit
from mecold.model import Model, axes_of
from mecold.report import FitReport, Recorder, Tracker
from mecold.rules import Groups, ItemsOrPairs, Named, Rules, leaving, rerank_of
from mecold.serving import adapt, check_k, check_state, chunks, ranked_frame, states_of
from mecold.space.back import Back
from mecold.space.channels.host import ItemFactors
from mecold.space.index import Hidden, Ranked
from mecold.space.rerank import Find
from mecold.space.shelf import Difference, Shelf
from mecold.space.space import ItemSpace, UserVectors, newcomers, with_text
from mecold.space.statistics import Kept
from mecold.store import load_model, save_model
from mecold.types import Explanation, Interaction, ItemId, Recommendation, Synced, UserState

_SAMPLE = 256  # items whose vectors are looked at when vectors of the caller's own are to be added


class Recommender:
    """Few-shot recommendations for users and items that the model has never seen.

    Args:
        encoder: turns item texts into vectors; the default `TextEncoder` (all-MiniLM-L6-v2) where None.
        config: settings of the meta-learning.
        template: which item columns make the text.
        index: `"auto"` (exact), `"flat"`, `"hnsw"`, or a FAISS factory string such as `"IVF256,Flat"`.
        device: where training and scoring run: `"auto"`, `"cpu"`, `"cuda"`, ... (see `mecold.devices`).
        rng: seed or generator of everything random (SPEC 7).
        progress: show progress bars.
    """

    def __init__(
        self,
        encoder: Encoder | None = None,
        *,
        config: MetaConfig | None = None,
        template: TextTemplate | None = None,
        index: str = "auto",
        device: str = "auto",
        rng: int | np.random.Generator | None = None,
        progress: bool = False,
    ) -> None:
        self.config = config or MetaConfig()
        self.template = template or TextTemplate()
        self.progress = progress
        self._encoder = encoder
        self._kind = index
        self._device = device_of(device)
        self._rng = np.random.default_rng(rng)
        self._state: tuple[Model, Shelf] | None = None  # replaced as one value: a reader never sees half of a change
        self._statistics: Kept | None = None
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """All but the lock, which every process and every copy has of its own."""
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.Lock()

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
        found = fit(
            log, catalog, vectors, self.config, factors=factors, groups=known.sizes, rng=self._rng, recorder=recorder
        )  # fmt: skip
        encoder, record = self._known_encoder().fingerprint, recorder.report.to_jsonl()
        model = Model(found.basis, found.head, encoder, axes_of(found.space), record, log.events, known)
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
        log = self._log(model, shelf, histories, columns, on_unknown)
        if (known := self._known(model, shelf, attributes, log)) is not None:
            log = replace(log, groups=known(log.users))
        labels = log.labels_from(self.config.liked_from)
        for some in chunks(log):
            users = log.users[some].to_list()
            unknown = [log.unknown.get(user, ()) for user in users]
            found = states_of(model, shelf, log.histories(labels, some), unknown)
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
        out = leaving(exclude, shelf.catalog)
        find = _finder(shelf, vectors, shelf.there([*out, *user.seen]), among)
        if include_seen:
            find = _with_seen(find, shelf, vectors, user, out, among)
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
        log = self._log(model, shelf, histories, columns, on_unknown)
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
        vector[:, shelf.space.spans["popularity"]] = 0.0
        both = UserVectors(vector, users.rows.reshape(1, -1), users.trust.reshape(1, -1))
        hidden = np.union1d(rows, shelf.there(leaving(exclude, shelf.catalog)))
        find = _finder(shelf, both, hidden, among)
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

    # ---- the catalogue

    def add_items(self, items: FrameLike, *, columns: Columns | None = None) -> None:
        """Add new items; they take what items with texts like theirs have. Readers see all of them or none.

        Raises:
            InvalidDataError: on items that cannot be used, or that are there already (use `update_items`).
        """
        with self._lock:
            model, shelf = self._ready()
            self._check_encoder(model, shelf)
            new = self._described(shelf, items, columns)
            there = [item for item in new.ids.to_list() if item in shelf.catalog]
            if there:
                raise InvalidDataError(
                    f"{len(there):,} of {len(new):,} items are in the catalogue already: {few(there)}. "
                    "Use update_items to change them."
                )
            shelf.catalog.check_kind(new.ids, "new items")
            self._state = (model, self._added(model, shelf, new))

    def update_items(self, items: FrameLike, *, columns: Columns | None = None) -> None:
        """Give items new texts; what their interactions say stays.

        Raises:
            UnknownItemError: naming items that are not there (use `add_items`).
        """
        with self._lock:
            model, shelf = self._ready()
            self._check_encoder(model, shelf)
            self._state = (model, self._updated(model, shelf, self._described(shelf, items, columns)))

    def remove_items(self, ids: Iterable[ItemId]) -> None:
        """Take items out of the catalogue; users who have them keep their states.

        What was learned of them is lost: an item that is added again is a new one. See `hide_items` for a while.

        Raises:
            UnknownItemError: naming items that are not there; none is removed then.
            InvalidDataError: if nothing would be left.
        """
        with self._lock:
            model, shelf = self._ready()
            leaving = list(dict.fromkeys(shelf.catalog.checked(ids, "ids")))
            shelf.catalog.rows(leaving, "the items to remove")
            if len(leaving) == len(shelf.catalog):
                raise InvalidDataError("This would remove every item; a catalogue keeps at least one.")
            self._state = (model, shelf.changed(leaving))

    def hide_items(self, ids: Iterable[ItemId]) -> None:
        """Recommend these items no more, and keep all that is known of them; readers see all of them hidden or none.

        They still count in histories, and `explain`, `scores`, `text_of` and `update_items` know them.

        Args:
            ids: the items; those that are hidden already stay so.

        Raises:
            UnknownItemError: naming items that are not in the catalogue; none is hidden then.
        """
        self._turn(ids, hidden=True)

    def show_items(self, ids: Iterable[ItemId]) -> None:
        """Recommend hidden items again, as if they had never been hidden.

        Args:
            ids: the items; those that are not hidden stay so.

        Raises:
            UnknownItemError: naming items that are not in the catalogue; none is shown then.
        """
        self._turn(ids, hidden=False)

    def item_ids(self, *, hidden: bool = False) -> list[ItemId]:
        """Ids of the items that can be recommended, in the order of the catalogue; of the hidden ones instead if asked."""
        _, shelf = self._ready()
        wanted = shelf.hidden if hidden else ~shelf.out
        return shelf.ids(wanted.nonzero()[:, 0].cpu().numpy())

    def __contains__(self, item: object) -> bool:
        """True for an item of the catalogue, hidden or not."""
        return isinstance(item, str | int) and item in self._ready()[1].catalog

    def sync_items(
        self, items: FrameLike, *, gone: Literal["hide", "remove"] = "hide", columns: Columns | None = None
    ) -> Synced:
        """Make the catalogue what a feed says it is; readers see all of it or nothing.

        New items are added, those with other texts updated, hidden ones that are in the feed shown again, and those that
        the feed lacks hidden or removed. Only new and changed texts are encoded; a feed that changes none needs no encoder.

        Args:
            items: frame or path with every item on offer: `item_id` and all text columns of the fit.
            gone: what becomes of items that are not in the feed; `"remove"` takes hidden ones too.
            columns: canonical name -> the caller's name.

        Returns:
            How many items each of these befell.

        Raises:
            InvalidDataError: on a feed that cannot be used, or that lacks a text column of the fit; nothing is changed then.
            EncoderError: if texts are new and the encoder is not the model's.
        """
        if gone not in ("hide", "remove"):
            raise InvalidDataError(f"gone={gone!r} must be 'hide' or 'remove'.")
        with self._lock:
            model, shelf = self._ready()
            feed = Catalog.read(items, template=self.template, columns=columns)
            difference = shelf.against(feed)
            now = self._with_texts(model, shelf, feed, difference)
            now = now.with_hidden(now.there(difference.back), hidden=False)
            leaving = difference.absent if gone == "hide" else [*difference.absent, *difference.absent_hidden]
            if gone == "hide":
                now = now.with_hidden(now.there(leaving), hidden=True)
            elif leaving:
                now = now.changed(leaving)
            self._state = (model, now)
        hidden, removed = (len(leaving), 0) if gone == "hide" else (0, len(leaving))
        return Synced(
            int(difference.new.sum()), int(difference.changed.sum()), len(difference.back), hidden, removed
        )  # fmt: skip

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
            encoder: needed only to add or update items; must be the one the model was fitted with.
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

    def text_of(self, item: ItemId) -> str:
        """The text that an item was encoded from."""
        _, shelf = self._ready()
        return shelf.catalog.text_of(int(shelf.catalog.rows(shelf.catalog.checked([item], "item"), "the items")[0]))

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

    def _ready(self) -> tuple[Model, Shelf]:
        if self._state is None:
            raise NotFittedError("This recommender has no model yet. Call fit_meta(...), or Recommender.load(folder).")
        return self._state

    def _known_encoder(self) -> Encoder:
        if self._encoder is None:
            self._encoder = TextEncoder(device=str(self._device))
        return self._encoder

    def _encode(self, items: Catalog, stacklevel: int = 3) -> Tensor:
        encoder = self._known_encoder()
        warn_unread(encoder, items.ids, items.texts, stacklevel=stacklevel)
        vectors = encode_or_zero(encoder, items.texts, progress=self.progress)
        return torch.from_numpy(vectors).to(self._device)

    def _vectors(self, texts: Sequence[str]) -> np.ndarray:
        return encode_or_zero(self._known_encoder(), texts)

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
        support, unknown = read_history(history, shelf.catalog, on_unknown, events)
        if attributes is None:
            return support, unknown
        groups = model.attributes.groups(one_user(attributes), self._vectors_of(model, shelf))
        return replace(support, groups=torch.from_numpy(groups)), unknown

    def _log(
        self, model: Model, shelf: Shelf, histories: FrameLike, columns: Columns | None, on_unknown: OnUnknown
    ) -> Interactions:
        return Interactions.read(
            histories, shelf.catalog, columns=columns, on_unknown=on_unknown, may_be_empty=True, events=model.events
        )  # fmt: skip

    def _known(
        self, model: Model, shelf: Shelf, attributes: FrameLike | None, log: Interactions
    ) -> Callable[[pl.Series], np.ndarray] | None:
        """What tells the groups of users; None where nothing is known of anybody."""
        if attributes is None:
            return None
        frame = read_attributes(attributes, log.users.dtype if len(log) else None)
        return lambda users: model.attributes.groups(of_these(frame, users), self._vectors_of(model, shelf))

    def _check_encoder(self, model: Model, shelf: Shelf) -> None:
        encoder = self._known_encoder()
        mine = encoder.fingerprint
        if mine == model.encoder and isinstance(encoder, PrecomputedEncoder):
            self._check_vectors(model, shelf, encoder)
        if mine != model.encoder:
            raise EncoderError(
                f"The model was fitted with the encoder {model.encoder!r}, this one is {mine!r}: their vectors do not "
                "mix. Pass the encoder it was fitted with: Recommender.load(folder, encoder=...)."
            )

    def _check_vectors(self, model: Model, shelf: Shelf, encoder: PrecomputedEncoder) -> None:
        """Refuse vectors of which some differ from those that the model was fitted with, by a sample of what both have."""
        live = np.flatnonzero(~shelf.catalog.gone)
        some = live[:: max(1, len(live) // _SAMPLE)].tolist()
        rows = [row for row in some if shelf.catalog.text_of(row) in encoder.vectors]
        made = torch.from_numpy(encoder.encode([shelf.catalog.text_of(row) for row in rows])).to(self._device)
        held = shelf.space.text_of(torch.tensor(rows, dtype=torch.long, device=self._device))
        if not torch.allclose(model.basis.text(made), held, atol=1e-3 * float(held.abs().max()) if rows else 1.0):
            raise EncoderError(
                f"Texts of the catalogue have other vectors in the encoder {encoder.name!r} than they had in the fit: the two "
                "do not mix. Pass the vectors it was fitted with, and new texts with vectors of the same origin."
            )

    def _described(self, shelf: Shelf, items: FrameLike, columns: Columns | None) -> Catalog:
        """Items of a later frame, which may lack columns of the fit."""
        kinds = {"item_id": shelf.catalog.dtype}  # a csv's ids are what the catalogue says
        frame = read_frame(items, "items", columns, names=self.template.names, ids=kinds)
        return Catalog.read(frame, template=self.template.narrowed(frame))

    def _untouched(self, model: Model, shelf: Shelf, new: Catalog) -> ItemSpace:
        """Rows of items as if nobody had touched them."""
        with torch.no_grad():
            text = model.basis.text(self._encode(new, stacklevel=5))
            return newcomers(shelf.space, ~(shelf.space.new | shelf.dead), text, model.basis)

    def _added(self, model: Model, shelf: Shelf, new: Catalog) -> Shelf:
        return shelf.changed([], new, self._untouched(model, shelf, new))

    def _updated(self, model: Model, shelf: Shelf, new: Catalog) -> Shelf:
        updating = new.ids.to_list()
        rows = torch.from_numpy(shelf.catalog.rows(updating, "the items to update")).to(self._device)
        fresh = self._untouched(model, shelf, new)
        return shelf.changed(updating, new, with_text(shelf.space.take(rows), fresh))

    def _with_texts(self, model: Model, shelf: Shelf, feed: Catalog, difference: Difference) -> Shelf:
        """The shelf with the feed's changed texts and new items."""
        if difference.changed.any() or difference.new.any():
            self._check_encoder(model, shelf)
        if difference.changed.any():
            shelf = self._updated(model, shelf, feed.taken(difference.changed))
        if difference.new.any():
            shelf = self._added(model, shelf, feed.taken(difference.new))
        return shelf

    def _turn(self, ids: Iterable[ItemId], *, hidden: bool) -> None:
        with self._lock:
            model, shelf = self._ready()
            rows = shelf.catalog.rows(shelf.catalog.checked(ids, "ids"), f"the items to {'hide' if hidden else 'show'}")
            self._state = (model, shelf.with_hidden(rows, hidden=hidden))


def _finder(shelf: Shelf, user: UserVectors, hidden: np.ndarray, among: Iterable[ItemId] | None) -> Find:
    """The search of one user: in all that is on the shelf, or among some items."""
    if among is None:
        return lambda _, depth: shelf.index.search(shelf.space, shelf.out, user, depth, Hidden.of([hidden]))
    wanted = shelf.catalog.rows(shelf.catalog.checked(among, "among"), "the items in `among`")
    allowed = np.setdiff1d(np.unique(wanted), hidden)
    return lambda _, depth: shelf.search_among(allowed, user, depth)


def _with_seen(
    find: Find, shelf: Shelf, vectors: UserVectors, user: UserState, out: list[ItemId], among: Iterable[ItemId] | None
) -> Find:
    """A search in which what the user has may come back."""
    gone, allowed = set(out), None if among is None else set(among)
    pairs = [
        (row, bonus)
        for item, bonus in zip(user.seen, user.again.tolist(), strict=True)
        if item not in gone and (allowed is None or item in allowed) and (row := shelf.catalog.row(item)) is not None
    ]
    rows = np.array([row for row, _ in pairs], np.int64)
    back = Back(Hidden.of([rows]), np.array([bonus for _, bonus in pairs], np.float32))
    back = back.only(~shelf.out.cpu().numpy()[rows])
    return lambda some, depth: back.among(find(some, depth), shelf.space, vectors, depth)


def _listed(shelf: Shelf, found: Ranked) -> list[Recommendation]:
    """The list of the one user of a search."""
    rows, scores = found.of(0)
    return [Recommendation(item, float(score)) for item, score in zip(shelf.ids(rows), scores, strict=True)]
