"""The face: ids in, ids out. The only stateful object; it holds a trained model and one shelf of items at a time.

A reader takes the shelf once per call; writers prepare a new one under a lock and swap it in. Users are not kept:
`adapt_user` returns a `UserState` that belongs to the caller.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from mecold.arguments import check_k, check_state, listed, read_history
from mecold.batch import chunks, histories_of, recommendations
from mecold.data.catalog import Catalog, TextTemplate
from mecold.encode.encoder import Encoder, TextEncoder, encode_or_zero
from mecold.errors import EncoderError, InvalidDataError, NotFittedError, few
from mecold.space.statistics import ItemFactors
from mecold.data.frames import Columns, FrameLike, read_frame
from mecold.data.interactions import Interactions, OnUnknown
from mecold.meta.config import MetaConfig
from mecold.meta.fit import fit
from mecold.report import FitReport, Tracker
from mecold.model import Model
from mecold.space.shelf import Shelf, cold_rows, with_new_text
from mecold.store import load_model, save_model
from mecold.data.histories import History, Support, history, pad
from mecold.space.space import ItemSpace, Query
from mecold.types import Explanation, Interaction, ItemId, Recommendation, UserState


class Recommender:
    """Few-shot recommendations for users and items that the model has never seen.

    Args:
        encoder: turns item texts into vectors; the default `TextEncoder` (all-MiniLM-L6-v2) where None.
        config: settings of the meta-learning.
        template: which item columns make the text.
        index: `"auto"` (exact), `"flat"`, `"hnsw"`, or a FAISS factory string such as `"IVF256,Flat"`.
        device: where training and scoring run: `"auto"`, `"cpu"`, `"cuda"`, ...
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
        self._device = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
        self._rng = np.random.default_rng(rng)
        self._state: tuple[Model, Shelf] | None = None  # replaced as one value: a reader never sees half of a change
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
            interactions: frame or path: `user_id`, `item_id`, optional `timestamp` or `position`, `rating`, `weight`.
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
        fitted = fit(
            log, catalog, vectors, self.config,
            factors=factors, rng=self._rng, trackers=trackers, progress=self.progress,
        )  # fmt: skip
        model = Model(fitted.tower, fitted.head, self._known_encoder().fingerprint, fitted.report.to_jsonl())
        shelf = Shelf.of(catalog, fitted.space, self._kind)
        with self._lock:
            self._state = (model, shelf)
            self.template = replace(
                self.template, fields=catalog.fields
            )  # later items are described by the same columns
        return fitted.report

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
        rows, seen = read_history(history, shelf, on_unknown)
        query = self._query(model, shelf, pad([rows]))
        trust = np.zeros(len(seen), np.float32)
        trust[[item in shelf.catalog.row_of for item in seen]] = _trusts(query.trust[0].cpu().numpy(), len(rows.rows))
        return UserState(query.vector[0].cpu().numpy(), seen, trust, len(rows.rows), model.fingerprint)

    def adapt_users(
        self, histories: FrameLike, *, columns: Columns | None = None, on_unknown: OnUnknown = "raise"
    ) -> dict[ItemId, UserState]:
        """Adapt to every user of a frame, in batches.

        Args:
            histories: frame or path as in `fit_meta`; ratings below `MetaConfig.liked_from` count as dislikes.
            columns: canonical name -> the caller's name.
            on_unknown: what to do with unknown items.

        Returns:
            State by user id, in order of first appearance by id.
        """
        model, shelf = self._ready()
        states: dict[ItemId, UserState] = {}
        log = Interactions.read(histories, shelf.catalog, columns=columns, on_unknown=on_unknown, may_be_empty=True)
        for users, part in histories_of(log, self.config.liked_from):
            query = self._query(model, shelf, pad(part))
            numbers = zip(query.vector.cpu().numpy(), query.trust.cpu().numpy(), strict=True)
            for user, one, (vector, weights) in zip(users, part, numbers, strict=True):
                size, unknown = len(one.rows), log.unknown.get(user, ())
                trust = np.pad(_trusts(weights, size), (0, len(unknown)))
                states[user] = UserState(vector, (*shelf.ids(one.rows), *unknown), trust, size, model.fingerprint)
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
            InvalidDataError: if k is no positive integer, or the state comes from another model.
            UnknownItemError: if `among` names unknown items.
        """
        model, shelf = self._ready()
        check_k(k)
        check_state(user, model)
        query = shelf.query(user)
        hidden = shelf.hidden([*listed(exclude, "exclude"), *(() if include_seen else user.seen)])
        if among is None:
            rows, scores = shelf.index.search(shelf.space, shelf.dead, query, k, [hidden])[0]
        else:
            allowed = np.unique(shelf.catalog.rows(listed(among, "among"), "the items in `among`"))
            rows, scores = shelf.search_among(np.setdiff1d(allowed, hidden), query, k)
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
            InvalidDataError: if k is no positive integer, or the histories cannot be used.
            UnknownItemError: if `among` names unknown items, or the histories do under `on_unknown="raise"`.
        """
        model, shelf = self._ready()
        check_k(k)
        out = shelf.left_out(listed(exclude, "exclude"), None if among is None else listed(among, "among"))
        log = Interactions.read(histories, shelf.catalog, columns=columns, on_unknown=on_unknown, may_be_empty=True)

        def found_for(part: Sequence[History]) -> list[tuple[np.ndarray, np.ndarray]]:
            query = self._query(model, shelf, pad(part))
            hidden = [one.rows[:0] if include_seen else one.rows for one in part]
            return shelf.index.search(shelf.space, out, query, k, hidden)

        return recommendations(log, list(users), self.config.liked_from, shelf.catalog, found_for)

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
        check_state(user, model)
        rows = shelf.catalog.rows(listed(items, "items"), "the items")
        if not len(rows):
            return np.empty(0, np.float32)
        wanted = torch.from_numpy(rows).to(self._device)
        found: np.ndarray = shelf.space.scores_among(wanted, shelf.query(user))[0].cpu().numpy()
        return found

    def similar_items(self, item: ItemId, k: int = 10) -> list[Recommendation]:
        """Items wanted by who has this one: what the head reads of it against every item, popularity left out.

        Raises:
            UnknownItemError: if the item is not in the catalogue.
        """
        model, shelf = self._ready()
        check_k(k)
        rows = shelf.catalog.rows([item], "the items")
        with torch.inference_mode():
            support = pad([history(rows)]).to(self._device)
            query = model.head(shelf.space, support, model.coefficients)
            query.vector[:, -1] = 0.0
        found_rows, scores = shelf.index.search(shelf.space, shelf.dead, query, k, [rows])[0]
        return [Recommendation(id_, float(score)) for id_, score in zip(shelf.ids(found_rows), scores, strict=True)]

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
        rows, _ = read_history(history, shelf, on_unknown)
        row = int(shelf.catalog.rows([item], "the items")[0])
        size = len(rows.rows)
        masked = np.concatenate([np.zeros((1, size)), np.diag(rows.labels), rows.labels[None]]).astype(np.float32)
        variants = [replace(rows, labels=labels) for labels in masked]
        wanted = torch.tensor([row], device=self._device)
        found = [shelf.space.scores_among(wanted, self._query(model, shelf, pad(part))) for part in chunks(variants)]
        scores = torch.cat(found)[:, 0].cpu().numpy()
        parts = zip(shelf.ids(rows.rows), (scores[1:-1] - scores[0]).tolist(), strict=True)
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
            there = [item for item in new.row_of if item in shelf.catalog.row_of]
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
            rows = shelf.catalog.rows(new.row_of, "the items to update")
            updated = with_new_text(shelf.space, rows, fresh, model.head.layout)
            self._state = (model, shelf.changed(list(new.row_of), new, updated))

    def remove_items(self, ids: Iterable[ItemId]) -> None:
        """Take items out of the catalogue; users who have them keep their states.

        Raises:
            UnknownItemError: naming items that are not there; none is removed then.
            InvalidDataError: if nothing would be left.
        """
        leaving = list(dict.fromkeys(listed(ids, "ids")))
        with self._lock:
            model, shelf = self._ready()
            shelf.catalog.rows(leaving, "the items to remove")
            if len(leaving) == len(shelf.catalog):
                raise InvalidDataError("This would remove every item; a catalogue keeps at least one.")
            nothing = Catalog.of(shelf.catalog.ids.clear(), [])
            self._state = (model, shelf.changed(leaving, nothing, shelf.space.head(0)))

    # ---- keeping

    def save(self, folder: str | Path) -> None:
        """Write the model to a folder: no pickle, checksummed, written beside the target and then renamed."""
        model, shelf = self._ready()
        settings = {"config": asdict(self.config), "template": asdict(self.template), "index": self._kind}
        save_model(Path(folder), model, shelf.packed(), settings)

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
        if encoder is not None:
            made._check_encoder(content.model)
        return made

    def text_of(self, item: ItemId) -> str:
        """The text that an item was encoded from."""
        _, shelf = self._ready()
        return shelf.catalog.texts[int(shelf.catalog.rows([item], "the items")[0])]

    def info(self) -> dict[str, Any]:
        """What this recommender is: sizes, channels, encoder, index, fingerprint."""
        model, shelf = self._ready()
        layout = model.head.layout
        return {
            "items": len(shelf.catalog),
            "cold_items": int((shelf.space.cold & ~shelf.dead).sum()),
            "item_ids": shelf.catalog.kind,
            "dim": layout.dim,
            "channels": {name: part.stop - part.start for name, part in layout.parts.items()},
            "neighbours": shelf.space.near.rows.shape[1],
            "inner": model.head.config.inner,
            "index": self._kind,
            "encoder": model.encoder,
            "model": model.fingerprint,
            "device": str(self._device),
        }

    # ---- inside

    def _ready(self) -> tuple[Model, Shelf]:
        if self._state is None:
            raise NotFittedError("This recommender has no model yet. Call fit_meta(...), or Recommender.load(folder).")
        return self._state

    def _query(self, model: Model, shelf: Shelf, support: Support) -> Query:
        with torch.inference_mode():
            query: Query = model.head(shelf.space, support.to(self._device), model.coefficients)
        return query

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
        """New items and their rows as cold items."""
        self._check_encoder(model)
        frame = read_frame(items, "items", columns)
        new = Catalog.read(frame, template=self.template.narrowed(frame))
        with torch.inference_mode():
            return new, cold_rows(model, shelf, self._encode(new.texts))


def _trusts(read: np.ndarray, shots: int) -> np.ndarray:
    """Trust in each row of a support, oldest first: of a long one only the newest were read."""
    size = min(shots, len(read))
    return np.pad(read[:size], (shots - size, 0))
