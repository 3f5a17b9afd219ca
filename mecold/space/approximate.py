"""Search through FAISS: it finds candidates by inner product, and what is on the neighbour lists of the support comes beside
them; all candidates are scored in full.

FAISS's padding, its empty error texts and its thread settings stay inside.

An inverted file divides the items into cells and looks into those that are nearest to a query. Cells are a matter of distance,
and by inner product alone long vectors are near to everything. So each vector gets one more number, which makes all of them
equally long: the nearest is then the one with the largest inner product, and the cells are even.

Source: Bachrach et al. 2014 (the added number); Jegou, Douze and Schmid 2011 (inverted files).
"""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Int64
from torch import Tensor
from torch.nn.functional import embedding

from mecold.errors import DataWarning, InvalidDataError, ModelFileError, foreign
from mecold.space.channel import side_by_side
from mecold.space.faiss_library import faiss_library
from mecold.space.index import ExactIndex, Hidden, ItemIndex, Ranked, top_rows
from mecold.space.space import ItemSpace, UserVectors

CROSSOVER = 30_000
"""Items from which `"auto"` searches in cells, on a CPU; bench/search.py measures where both are level."""

_CELLS = 4.0  # times the root of the number of items
_LEAST_CELLS, _SHARE_OF_CELLS = 32, 1 / 64  # that are looked into: so many, and this share of all
_PER_CELL = 64  # vectors for each cell, that cells are fitted on
_DEPTH = 10  # times k candidates of FAISS: where many items are nearly the same, rounding mixes them up
_LISTED = 128  # rows on the lists beside them
_WIDTHS = 32  # widths that the processor reads whole
_FEW_OUT = 100  # rows that nobody gets: as many more are asked for; of more, FAISS is told which, where it can
_NUMBERS_AT_ONCE = 1 << 24  # of candidates' vectors, 64 MB


class FaissIndex:
    """A FAISS index over the rows that were there when it was built; newer rows are searched exactly.

    Asks for as many more as users must not get, and falls back to the exact search for a user whose list would come out short.

    Args:
        factory: `"auto"`, `"flat"`, `"hnsw"`, or a FAISS factory string such as `"IVF256,Flat"`.
        built: a FAISS index that is already filled.
    """

    def __init__(self, factory: str, built: Any) -> None:
        self.factory = factory
        self._built = built

    @property
    def covers(self) -> int:
        """How many rows, from the first, the FAISS index holds."""
        return int(self._built.ntotal)

    @classmethod
    def build(cls, factory: str, vectors: Float[Tensor, "items dim"]) -> "FaissIndex":
        """Train if needed, and add every vector.

        Raises:
            InvalidDataError: if FAISS does not know the factory string, or refuses these vectors.
        """
        faiss, width = faiss_library(), vectors.shape[1]
        data = np.ascontiguousarray(vectors.cpu().numpy(), dtype=np.float32)
        cells = 1 << max(0, round(math.log2(_CELLS * math.sqrt(len(data)))))
        name = {"flat": "Flat", "hnsw": "HNSW32", "auto": f"IVF{cells},SQ8"}.get(factory, factory)
        by_product = name == "Flat" or name.startswith("HNSW")
        try:
            data = data if by_product else _equally_long(data)
            metric = faiss.METRIC_INNER_PRODUCT if by_product else faiss.METRIC_L2
            built = faiss.index_factory(data.shape[1], name, metric)
            if factory == "hnsw":
                built.hnsw.efConstruction, built.hnsw.efSearch = 100, 128
            if isinstance(built, faiss.IndexIVF):
                built.cp.max_points_per_centroid, built.cp.min_points_per_centroid = _PER_CELL, 1
                built.nprobe = min(built.nlist, _LEAST_CELLS + int(built.nlist * _SHARE_OF_CELLS))
            if not built.is_trained:
                built.train(data)
            built.add(data)
        except (RuntimeError, AssertionError) as error:
            raise InvalidDataError(
                f"FAISS cannot build index={factory!r} over {len(data):,} vectors of width {width}: "
                f"{str(error)[:300] or 'no reason given'}. Use 'auto', 'flat', 'hnsw', or another factory string."
            ) from error
        return cls(factory, built)

    @classmethod
    def checked(cls, factory: str, built: Any, items: int, width: int) -> "FaissIndex":
        """An index that was read, if it is one of these items.

        Args:
            factory: the setting it was built from.
            built: FAISS's index, as from `opened`.
            items: how many rows there are; the index may cover fewer.
            width: of their vectors.

        Raises:
            ModelFileError: if it is no trained index of such vectors.
        """
        faiss = faiss_library()
        widths = {faiss.METRIC_INNER_PRODUCT: width, faiss.METRIC_L2: _wide(width + 1)}
        if built.d != widths.get(built.metric_type) or not 0 < built.ntotal <= items or not built.is_trained:
            raise ModelFileError(
                f"'index.faiss' holds {built.ntotal:,} vectors of width {built.d}, the model {items:,} of width {width}: it is "
                "another model's, or not trained. Restore it, or fit and save again."
            )
        return cls(factory, built)

    def write(self, path: Path) -> None:
        """Write the index in FAISS's own format."""
        faiss_library().write_index(self._built, str(path))

    def search(
        self, space: ItemSpace, out: Tensor, users: UserVectors, k: int, hidden: Hidden, only: Hidden | None = None
    ) -> Ranked:
        """See `ItemIndex.search`; who may get certain rows only is searched exactly."""
        total = self.covers
        gone = out.cpu().numpy()
        away = int(gone[:total].sum())
        told = away > _FEW_OUT and isinstance(self._built, faiss_library().IndexIVF)
        depth = _DEPTH * k + int(np.bincount(hidden.users).max(initial=0)) + (0 if told else away)
        if depth * 4 > (total - away if told else total) or only is not None:
            return ExactIndex().search(space, out, users, k, hidden, only)
        best = self._nearest(users.vector, depth, gone[:total] if told else None)
        step = max(
            1, _NUMBERS_AT_ONCE // ((depth + _LISTED) * max(channel.width for channel in space.channels.values()))
        )
        parts = []
        for start in range(0, len(users), step):
            some = slice(start, start + step)
            found = _best_of(space, out, users[some], best[some], total, k, hidden.between(start, start + step))
            parts.append(found)
        ranked = Ranked.join(parts)
        short = np.flatnonzero(~ranked.valid.all(1) | (ranked.valid.shape[1] < k))
        if len(short):  # too few candidates were left
            again = users.take(torch.from_numpy(short).to(out.device))
            exact = ExactIndex().search(space, out, again, k, hidden.taken(short))
            ranked = _with(ranked, short, exact, k)
        return ranked

    def _nearest(
        self, queries: Tensor, depth: int, gone: Bool[np.ndarray, " rows"] | None
    ) -> Int64[np.ndarray, "users depth"]:
        """Rows of the largest inner products without what is gone, -1 behind the last that was found."""
        faiss, built, settings = faiss_library(), self._built, None
        wanted = np.zeros((len(queries), built.d), np.float32)
        wanted[:, : queries.shape[1]] = queries.cpu().numpy()
        if gone is not None:
            there = np.packbits(~gone, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(there), faiss.swig_ptr(there))
            cells = min(built.nlist, math.ceil(built.nprobe * len(gone) / max(1, np.count_nonzero(~gone))))
            settings = faiss.SearchParametersIVF(sel=selector, nprobe=cells)
        found: Int64[np.ndarray, "users depth"] = built.search(wanted, depth, params=settings)[1]
        return found


def _best_of(
    space: ItemSpace, out: Tensor, users: UserVectors, best: np.ndarray, total: int, k: int, hidden: Hidden
) -> Ranked:
    """The best among FAISS's candidates, those of whom the lists say most, and all rows from `total` on."""
    away = _Away(space, out, hidden)
    found = torch.from_numpy(best).to(out.device).sort(1).values
    listed, said = _said(space, users)
    scores = away.masked(found, space.products_of(found.clamp(min=0), users) + _at(listed, said, found))
    others = (said > 0) & (_at(found, torch.ones_like(scores), listed) == 0)
    said, places = torch.where(others, said, -torch.inf).topk(min(_LISTED, said.shape[1]), dim=1)
    listed = listed.gather(1, places)
    also = away.masked(listed, space.products_of(listed, users) + said)
    rows, order = torch.cat([found, listed], dim=1).sort(1)
    scores = torch.cat([scores, also], dim=1).gather(1, order)
    if total < len(space):
        fresh = torch.arange(total, len(space), device=rows.device)
        later = space.scores_among(fresh, users)
        owners, places = torch.nonzero((rows >= total) & torch.isfinite(scores), as_tuple=True)
        later[owners, rows[owners, places] - total] = -torch.inf  # it is there already
        fresh = fresh.expand(len(users), -1)
        rows, scores = torch.cat([rows, fresh], dim=1), torch.cat([scores, away.masked(fresh, later)], dim=1)
    values, columns = top_rows(scores, k)
    return Ranked(np.take_along_axis(rows.cpu().numpy(), columns, 1), values, np.isfinite(values))


class _Away:
    """What nobody gets, and what a user of a batch does not."""

    def __init__(self, space: ItemSpace, out: Tensor, hidden: Hidden) -> None:
        self.out, self.size = out, len(space)
        self.own = np.sort(hidden.users * self.size + hidden.rows)

    def masked(
        self, rows: Int[Tensor, "users some"], scores: Float[Tensor, "users some"]
    ) -> Float[Tensor, "users some"]:
        """The scores with -inf for such rows, and where there is none."""
        gone = (rows < 0) | self.out[rows.clamp(min=0)]
        if len(self.own):
            keys = rows.cpu().numpy() + np.arange(len(rows))[:, None] * self.size
            there = self.own[np.searchsorted(self.own, keys).clip(max=len(self.own) - 1)] == keys
            gone |= torch.from_numpy(there).to(gone.device)
        return scores.masked_fill(gone, -torch.inf)


def _said(space: ItemSpace, users: UserVectors) -> tuple[Int[Tensor, "users entries"], Float[Tensor, "users entries"]]:
    """Rows that are on the lists of the support, ascending, and what the lists say of each where it stands first; else 0."""
    entries = space.lists.rows[users.rows].flatten(1).long()
    weights = (users.trust[..., None] * embedding(users.rows, space.lists.values)).flatten(1)
    rows, order = entries.sort(1)
    first = torch.searchsorted(rows, rows)
    return rows, torch.zeros_like(weights).scatter_add_(1, first, weights.gather(1, order))


def _at(
    rows: Int[Tensor, "users some"], values: Float[Tensor, "users some"], wanted: Int[Tensor, "users wanted"]
) -> Float[Tensor, "users wanted"]:
    """The value of each wanted row where it stands first among ascending rows; 0 where it does not."""
    if not rows.shape[1]:
        return values.new_zeros(wanted.shape)
    places = torch.searchsorted(rows, wanted).clamp(max=rows.shape[1] - 1)
    return torch.where(rows.gather(1, places) == wanted, values.gather(1, places), 0.0)


def _with(ranked: Ranked, users: np.ndarray, own: Ranked, k: int) -> Ranked:
    """The lists of all users, with those of some in place of what they were."""

    def wide(table: np.ndarray) -> np.ndarray:
        return np.pad(table, ((0, 0), (0, k - table.shape[1])))

    whole, some = (Ranked(*map(wide, one)) for one in (ranked, own))
    for table, rows in zip(whole, some, strict=True):
        table[users] = rows
    return whole


def _equally_long(data: Float32[np.ndarray, "items dim"]) -> Float32[np.ndarray, "items wide"]:
    """The vectors with one more number, which makes all as long as the longest; and zeros, to a width that is read fast."""
    lengths = np.einsum("id,id->i", data, data)
    wide = np.zeros((len(data), _wide(data.shape[1] + 1)), np.float32)
    wide[:, : data.shape[1]] = data
    wide[:, data.shape[1]] = np.sqrt(lengths.max(initial=0.0) - lengths)
    return wide


def _wide(width: int) -> int:
    return -(-width // _WIDTHS) * _WIDTHS


def opened(source: bytes | Path) -> Any:
    """What `write` wrote; a parser in C++ reads it, so it must come from somebody who is trusted.

    Args:
        source: content of the file; or its path: it stays on disk then, as far as FAISS can map it.

    Raises:
        ModelFileError: if FAISS cannot read it.
    """
    faiss = faiss_library()
    with foreign(ModelFileError, "FAISS cannot read 'index.faiss'", "Restore it, or fit and save again."):
        if isinstance(source, Path):
            return faiss.read_index(str(source), faiss.IO_FLAG_MMAP)
        return faiss.deserialize_index(np.frombuffer(source, np.uint8))


def make_index(kind: str, space: ItemSpace) -> ItemIndex:
    """The index for a setting: `"exact"` needs no building, nor does `"auto"` in a small catalogue or on a GPU; everything else
    goes to FAISS.

    Warns:
        DataWarning: where `"auto"` would want FAISS and it is not installed.
    """
    if kind == "exact" or (kind == "auto" and (space.device.type != "cpu" or len(space) < CROSSOVER)):
        return ExactIndex()
    try:
        return FaissIndex.build(kind, side_by_side({name: channel.item for name, channel in space.channels.items()}))
    except ImportError as error:
        if kind != "auto":
            raise
        warnings.warn(f"{error}. {len(space):,} items are searched exactly, which is slow.", DataWarning, stacklevel=3)
        return ExactIndex()
