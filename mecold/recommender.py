"""The face: ids in, ids out. The only stateful object; it holds a trained model and one shelf of items at a time.

A reader takes the shelf once per call; writers prepare a new one under a lock and swap it in. Users are not kept:
`adapt_user` returns a `UserState` that belongs to the caller.
"""

import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mecold.data.catalog import Catalog, TextTemplate
from mecold.data.frames import Columns, FrameLike, read_frame
from mecold.data.histories import Histories
from mecold.data.interactions import Interactions, OnUnknown
from mecold.devices import device_of
from mecold.encode.encoder import Encoder, TextEncoder, encode_or_zero
from mecold.errors import EncoderError, InvalidDataError, NotFittedError, few
from mecold.meta.config import MetaConfig
from mecold.meta.fit import fit
from mecold.model import Model, axes_of
from mecold.report import FitReport, Recorder, Tracker
from mecold.serving import adapt, check_k, check_state, chunks, excluded, ranked_frame, read_history, states_of
from mecold.space.channels.host import ItemFactors
from mecold.space.index import Hidden
from mecold.space.shelf import Shelf
from mecold.space.space import ItemSpace, newcomers, with_text
from mecold.space.statistics import Kept
from mecold.store import load_model, save_model
from mecold.types import Explanation, Interaction, ItemId, Recommendation, UserState


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

    # ---- learning

    def fit_meta(
        self,
        interactions: FrameLike,
        items: FrameLike,
        *,
        factors: ItemFactors | None = None,
        interaction_columns: Columns | None = None,
        item_columns: Columns | None = None,
        on_unknown: OnUnknown = "raise",
        trackers: Sequence[Tracker] = (),
    ) -> FitReport:
        """Meta-learn from a log; replaces what was learned before only when it has succeeded.

        Args:
            interactions: frame or path: `user_id`, `item_id`, optional `timestamp` or `position`, `rating`, `weight`,
                `label`.
            items: frame or path: `item_id` and text columns.
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
        """
        catalog = Catalog.read(items, template=self.template, columns=item_columns)
        log = Interactions.read(interactions, catalog, columns=interaction_columns, on_unknown=on_unknown)
        vectors = self._encode(catalog.texts)
        recorder = Recorder(trackers=trackers, progress=self.progress)
        if (unused := log.unused_ratings(self.config.liked_from)) is not None:
            recorder.note(unused)
        found = fit(log, catalog, vectors, self.config, factors=factors, rng=self._rng, recorder=recorder)
        encoder, record = self._known_encoder().fingerprint, recorder.report.to_jsonl()
        model = Model(found.basis, found.head, encoder, axes_of(found.space), record)
        shelf = Shelf.of(catalog, found.space, self._kind)
        with self._lock:
            self._state = (model, shelf)
            self._statistics = Kept(catalog.ids, found.statistics)
            # later items are described by the same columns
            self.template = replace(self.template, fields=catalog.fields)
        return recorder.report

    # ---- adapting

    def adapt_user(self, history: Iterable[ItemId | Interaction], *, on_unknown: OnUnknown = "raise") -> UserState:
        """Adapt to one user; pure, nothing is kept. An empty history gives the zero-shot user.

        Args:
            history: item ids or `Interaction`s, oldest first; with times on all of them, in any order. Of repeated
                items the first counts.
            on_unknown: `"drop"` leaves out items that are not in the catalogue; they still count as seen.

        Raises:
            UnknownItemError: naming the unknown items.
            InvalidDataError: on labels or weights that are not finite numbers, or times on some rows only.
        """
        model, shelf = self._ready()
        support, unknown = read_history(history, shelf.catalog, on_unknown)
        return next(states_of(model, shelf, support, [unknown]))

    def adapt_users(
        self, histories: FrameLike, *, columns: Columns | None = None, on_unknown: OnUnknown = "raise"
    ) -> dict[ItemId, UserState]:
        """Adapt to every user of a frame, in batches.

        Args:
            histories: frame or path as in `fit_meta`; without a `label` column, ratings below `MetaConfig.liked_from` count
                as dislikes.
            columns: canonical name -> the caller's name.
            on_unknown: what to do with unknown items.

        Returns:
            State by user id, in order of first appearance by id.
        """
        model, shelf = self._ready()
        states: dict[ItemId, UserState] = {}
        log = Interactions.read(histories, shelf.catalog, columns=columns, on_unknown=on_unknown, may_be_empty=True)
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
    ) -> list[Recommendation]:
        """The k best items for a user: exactly k while k are left, best first, ties in catalogue order.

        Args:
            user: from `adapt_user` or `adapt_users` of this model.
            k: how many; at least 1.
            exclude: items to leave out; unknown ones are no error, they are out already.
            among: recommend only these.
            include_seen: let items of the support come back.

        Raises:
            InvalidDataError: if k is no positive integer, the state comes from another model, or `exclude` or `among` holds
                ids of another type than the catalogue's.
            UnknownItemError: if `among` names unknown items.

        Warns:
            DataWarning: if `exclude` names items, but none that is in the catalogue.
        """
        model, shelf = self._ready()
        check_k(k)
        check_state(user, model, shelf.space.dim)
        vectors = shelf.vectors_of(user)
        hidden = shelf.hidden([*excluded(exclude, shelf.catalog), *(() if include_seen else user.seen)])
        if among is None:
            rows, scores = shelf.index.search(shelf.space, shelf.dead, vectors, k, Hidden.of([hidden])).of(0)
        else:
            allowed = np.unique(shelf.catalog.rows(shelf.catalog.checked(among, "among"), "the items in `among`"))
            rows, scores = shelf.search_among(np.setdiff1d(allowed, hidden), vectors, k)
        return [Recommendation(item, float(score)) for item, score in zip(shelf.ids(rows), scores, strict=True)]

    def recommend_batch(
        self,
        histories: FrameLike,
        k: int = 10,
        *,
        users: Iterable[ItemId] = (),
        columns: Columns | None = None,
        on_unknown: OnUnknown = "raise",
        exclude: Iterable[ItemId] = (),
        among: Iterable[ItemId] | None = None,
        include_seen: bool = False,
    ) -> pl.DataFrame:
        """Adapt to and recommend for every user of a frame, in bounded memory.

        Args:
            histories: frame or path as in `adapt_users`.
            k: how many per user.
            users: further users without any history, who get the zero-shot list.
            columns: canonical name -> the caller's name.
            on_unknown: what to do with unknown items.
            exclude: items that nobody gets; unknown ones are no error, they are out already.
            among: recommend only these.
            include_seen: let items of the support come back.

        Returns:
            A frame with `user_id`, `rank` (from 1), `item_id`, `score`.

        Raises:
            InvalidDataError: if k is no positive integer, the histories cannot be used, or `users`, `exclude` or `among` hold
                ids of another type.
            UnknownItemError: if `among` names unknown items, or the histories do under `on_unknown="raise"`.

        Warns:
            DataWarning: if `exclude` names items, but none that is in the catalogue.
        """
        model, shelf = self._ready()
        check_k(k)
        wanted = None if among is None else shelf.catalog.checked(among, "among")
        out = shelf.left_out(excluded(exclude, shelf.catalog), wanted)
        log = Interactions.read(histories, shelf.catalog, columns=columns, on_unknown=on_unknown, may_be_empty=True)

        return ranked_frame(
            model, shelf, log, users, k, self.config.liked_from, out, include_seen=include_seen
        )  # fmt: skip

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

    def similar_items(self, item: ItemId, k: int = 10) -> list[Recommendation]:
        """Items wanted by who has this one: what the head reads of it against every item, popularity left out.

        Raises:
            UnknownItemError: if the item is not in the catalogue.
        """
        model, shelf = self._ready()
        check_k(k)
        rows = shelf.catalog.rows(shelf.catalog.checked([item], "item"), "the items")
        users = adapt(model, shelf, Histories.padded(rows, np.array([1])))
        vector = users.vector.clone()
        vector[:, shelf.space.spans["popularity"]] = 0.0
        found = shelf.index.search(shelf.space, shelf.dead, replace(users, vector=vector), k, Hidden.of([rows])).of(0)
        return [Recommendation(id_, float(score)) for id_, score in zip(shelf.ids(found[0]), found[1], strict=True)]

    def explain(
        self, history: Iterable[ItemId | Interaction], item: ItemId, *, on_unknown: OnUnknown = "raise"
    ) -> Explanation:
        """What each support item contributes to the score of an item; exact, since the query is affine in the labels.

        A contribution is what the score would lose if the user had seen that support item without an opinion: nothing for
        items older than the newest 20, which are not read.

        Args:
            history: as for `adapt_user` (a state does not keep its support's labels).
            item: the item to explain.
            on_unknown: what to do with unknown items in the history.
        """
        model, shelf = self._ready()
        support, _ = read_history(history, shelf.catalog, on_unknown)
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
            new, fresh = self._described(model, shelf, items, columns)
            there = [item for item in new.ids.to_list() if item in shelf.catalog]
            if there:
                raise InvalidDataError(
                    f"{len(there):,} of {len(new):,} items are in the catalogue already: {few(there)}. "
                    "Use update_items to change them."
                )
            shelf.catalog.check_kind(new.ids, "new items")
            self._state = (model, shelf.changed([], new, fresh))

    def update_items(self, items: FrameLike, *, columns: Columns | None = None) -> None:
        """Give items new texts; what their interactions say stays.

        Raises:
            UnknownItemError: naming items that are not there (use `add_items`).
        """
        with self._lock:
            model, shelf = self._ready()
            new, fresh = self._described(model, shelf, items, columns)
            updating = new.ids.to_list()
            rows = torch.from_numpy(shelf.catalog.rows(updating, "the items to update")).to(self._device)
            self._state = (model, shelf.changed(updating, new, with_text(shelf.space.take(rows), fresh)))

    def remove_items(self, ids: Iterable[ItemId]) -> None:
        """Take items out of the catalogue; users who have them keep their states.

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
            made._check_encoder(content.model)
        return made

    def text_of(self, item: ItemId) -> str:
        """The text that an item was encoded from."""
        _, shelf = self._ready()
        return shelf.catalog.text_of(int(shelf.catalog.rows(shelf.catalog.checked([item], "item"), "the items")[0]))

    def info(self) -> dict[str, Any]:
        """What this recommender is: sizes, channels, encoder, index, fingerprint, notes of its fit."""
        model, shelf = self._ready()
        return {
            "items": len(shelf.catalog),
            "cold_items": int((shelf.space.new & ~shelf.dead).sum()),
            "item_ids": shelf.catalog.kind,
            "dim": shelf.space.dim,
            "channels": {name: channel.width for name, channel in shelf.space.channels.items()},
            "neighbours": shelf.space.lists.rows.shape[1],
            "inner": model.head.config.inner,
            "index": self._kind,
            "encoder": model.encoder,
            "model": model.fingerprint,
            "device": str(self._device),
            "notes": json.loads(model.log.splitlines()[-1])["notes"] if model.log else [],
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

    def _encode(self, texts: Sequence[str]) -> Tensor:
        vectors = encode_or_zero(self._known_encoder(), texts, progress=self.progress)
        return torch.from_numpy(vectors).to(self._device)

    def _check_encoder(self, model: Model) -> None:
        mine = self._known_encoder().fingerprint
        if mine != model.encoder:
            raise EncoderError(
                f"The model was fitted with the encoder {model.encoder!r}, this one is {mine!r}: their vectors do not "
                "mix. Pass the encoder it was fitted with: Recommender.load(folder, encoder=...)."
            )

    def _described(
        self, model: Model, shelf: Shelf, items: FrameLike, columns: Columns | None
    ) -> tuple[Catalog, ItemSpace]:
        """New items, and their rows as items that nobody has touched."""
        self._check_encoder(model)
        kinds = {"item_id": shelf.catalog.dtype}  # a csv's ids are what the catalogue says
        frame = read_frame(items, "items", columns, names=self.template.names, ids=kinds)
        new = Catalog.read(frame, template=self.template.narrowed(frame))
        with torch.no_grad():
            text = model.basis.text(self._encode(new.texts))
            usable = ~(shelf.space.new | shelf.dead)
            return new, newcomers(shelf.space, usable, text, model.basis)
