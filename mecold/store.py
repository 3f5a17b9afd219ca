"""A recommender's folder: what of it lies in which file."""

import io
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file
from torch import Tensor

from mecold.data.archive import Archive, mark_of
from mecold.data.attributes import Attribute, Attributes
from mecold.data.catalog import Catalog, TextTemplate
from mecold.data.events import Events
from mecold.data.histories import Histories
from mecold.errors import ModelFileError, foreign
from mecold.forks import check_frames
from mecold.heads.preference import Gains, HeadConfig, PreferenceHead, Prior
from mecold.heads.ratings import RatingHead
from mecold.journal import add, held, mark_in, names_of
from mecold.meta.config import MetaConfig, TrainConfig
from mecold.model import Model, Ratings
from mecold.sealed import Sealed, map_array, plain, read_config, read_sealed, write_arrays, write_sealed
from mecold.space.approximate import FaissIndex, opened
from mecold.space.basis import Basis
from mecold.space.channel import Channel, Traits
from mecold.space.clock import Clock
from mecold.space.index import ExactIndex, ItemIndex
from mecold.space.lists import Lists
from mecold.space.settings import FactorConfig
from mecold.space.shelf import Shelf
from mecold.space.space import ItemSpace

KIND = "model"
FORMAT = 10
_SOME = 100  # items that are looked at where the others are on disk
_LOG = ("log", "log_users", "log_items", "log_waiting")


@dataclass(frozen=True)
class Content:
    """What a model folder holds, on the CPU."""

    model: Model
    catalog: Catalog
    space: ItemSpace
    index: ItemIndex
    hidden: Tensor
    config: MetaConfig
    template: TextTemplate
    kind: str
    archive: Archive | None
    journal: bool

    def place(self, device: torch.device) -> tuple[Model, Shelf]:
        """Model and shelf on a device."""
        model = self.model.to(device)
        # on a GPU the exact search is the fast one
        index = ExactIndex() if self.kind == "auto" and device.type != "cpu" else self.index
        return model, Shelf.of(self.catalog, self.space.to(device), self.kind, index, self.hidden.to(device))


def save_model(
    folder: Path, model: Model, shelf: Shelf, archive: Archive | None, settings: Mapping[str, Any], *, log: bool = True
) -> None:
    """Write a model; the previous one stays whole until the new one is complete on disk.

    Args:
        folder: the target; may hold an older model, but nothing else.
        model: basis, head, encoder fingerprint, log.
        shelf: items without dead rows.
        archive: the log; None for a model without one.
        settings: `config`, `template` and `index`, as JSON values.
        log: whether the log is written.

    Raises:
        ModelFileError: if the folder holds something that is not a model, or what this one has not read.
    """
    check_frames("Saving a model")
    written = archive.settled() if log and archive is not None else None

    def carried(target: Path) -> list[str]:
        return [] if archive is None else _unseen(target, archive, log=log)

    write_sealed(folder, KIND, FORMAT, lambda fresh: _put(fresh, model, shelf, written, settings), carried)


def _unseen(folder: Path, archive: Archive, *, log: bool) -> list[str]:
    """Entries of a folder's journal that an archive has not read.

    Raises:
        ModelFileError: if the folder was saved by somebody who had read more, or there are such entries where there must not be.
    """
    try:
        there = read_config(folder, KIND, FORMAT)["archive"]
    except ModelFileError:  # nothing of ours
        return []
    if there is None or there["origin"] != archive.origin:
        return []
    marks = {name: mark_in(name, archive.origin) for name in names_of(folder)}
    unseen = [name for name, mark in marks.items() if mark is not None and not archive.has_read(mark)]
    if not archive.knows(there):
        raise ModelFileError(
            f"'{folder}' was saved by somebody else since this model was loaded, and may hold what this one has not read; "
            "nothing was written. Load it again, and repeat what you did, or save to another folder."
        )
    if unseen and (archive.is_news_to(there) or not log):
        raise ModelFileError(
            f"{len(unseen):,} batches were observed into '{folder}' since this model was loaded; they would be lost, or hold "
            "rows of users who are to be forgotten. Nothing was written. Load it again, and repeat what you did."
        )
    return unseen


def journal(folder: Path, archive: Archive, batch: pl.DataFrame) -> None:
    """Add a batch of rows to a saved model; when this returns they are on disk.

    Args:
        folder: the model's.
        archive: of the same model; it has the batch already.
        batch: as it was observed.

    Raises:
        ModelFileError: if the folder holds no such model, or cannot be written.
    """
    folder = Path(os.path.realpath(folder))
    with (
        foreign(ModelFileError, f"The journal of '{folder}' could not be written", "Nothing was observed."),
        held(folder),
    ):
        origin = read_config(folder, KIND, FORMAT)["archive"]
        if origin is None or origin["origin"] != archive.origin:
            raise ModelFileError(
                f"'{folder}' holds another model than the one that observes, or one without its log; nothing was written. Name "
                "the folder that this model was loaded from, or saved to."
            )
        add(folder, archive.origin, archive.batches[-1], batch.write_parquet)


def replayed(archive: Archive, sealed: Sealed, catalog: Catalog) -> Archive:
    """An archive with what a folder's journal holds beyond it. Items that were taken out meanwhile have no rows any more.

    Raises:
        ModelFileError: naming an entry that is damaged or another model's.
    """
    for name, data in sealed.entries.items():
        where = f"The entry '{name}' of the journal in '{sealed.folder}'"
        with foreign(ModelFileError, f"{where} is damaged", "Move it away; what it holds is lost then."):
            mark = mark_in(name, archive.origin)
            if mark is None:
                raise ModelFileError(f"{where} is another model's. Move it away.")
            if archive.has_read(mark):
                continue
            batch = pl.read_parquet(io.BytesIO(data))
            if mark_of(batch) != mark:
                raise ValueError("its content is not what its name says")
            there = (catalog.find(batch["item_id"], "journal") >= 0).alias("there")
            archive = archive.with_batch(batch.filter(there), mark)
    return archive


def _put(
    folder: Path, model: Model, shelf: Shelf, archive: Archive | None, settings: Mapping[str, Any]
) -> dict[str, Any]:
    space, basis = shelf.space, model.basis
    weights = {"basis.center": basis.center, "basis.project": basis.project, "basis.popular": basis.popular}
    weights |= {f"prior.{name}": value for name, value in model.head.prior.tensors().items()}
    weights |= {f"gains.{name}": value for name, value in model.head.gains.tensors().items()}
    weights |= {f"attributes.{one.name}": torch.from_numpy(one.centres) for one in model.attributes.columns}
    save_file(plain(weights), folder / "weights.safetensors")
    items = {
        "lists.rows": space.lists.rows,
        "lists.values": space.lists.values,
        "counts": space.counts,
        "new": space.new,
        "hidden": shelf.hidden,
    }
    for name, channel in space.channels.items():
        items[f"{name}.item"] = channel.item
        if channel.norm is not None:
            items[f"{name}.norm"] = channel.norm
        if channel.support is not None and not channel.shared:
            items[f"{name}.support"] = channel.support
        if channel.clock is not None:
            items[f"{name}.centres"] = channel.clock.centres
    write_arrays(folder, {f"items.{name}": value for name, value in items.items()})
    pl.DataFrame({"item_id": shelf.catalog.ids, "text": shelf.catalog.texts}).write_parquet(folder / "items.parquet")
    for name, table in ({} if archive is None else archive.tables()).items():
        table.write_parquet(folder / f"{name}.parquet")
    if model.ratings is not None:
        save_file(plain(model.ratings.head.tensors()), folder / "ratings.safetensors")
        rows = model.ratings.rows
        ids = pl.Series("item_id", list(rows), dtype=shelf.catalog.ids.dtype)
        pl.DataFrame([ids, pl.Series("row", list(rows.values()), dtype=pl.Int64)]).write_parquet(
            folder / "ratings.parquet"
        )
    (folder / "fit_log.jsonl").write_text(model.log, "utf-8")
    if isinstance(shelf.index, FaissIndex):
        shelf.index.write(folder / "index.faiss")
    channels = {
        name: {
            "traits": asdict(channel.traits),
            "shared": channel.shared,
            "persistence": None if channel.clock is None else channel.clock.persistence,
        }
        for name, channel in space.channels.items()
    }
    return {
        "encoder": model.encoder,
        "axes": model.axes,
        "channels": channels,
        "events": asdict(model.events),
        "attributes": [
            {"name": one.name, "kind": one.kind, "edges": one.edges.tolist(), "names": one.names}
            for one in model.attributes.columns
        ],
        "new_gain": dict(basis.new_gain),
        "archive": None if archive is None else archive.about(),
        **settings,
    }


def load_model(folder: Path, *, mapped: bool = False) -> Content:
    """Read and verify a model.

    Args:
        folder: the model's.
        mapped: leave what there is of each item on disk, see `read_sealed`; the log is not read.

    Raises:
        ModelFileError: naming what is missing, damaged, changed, or newer than this version of mecold.
    """
    left = [f"{name}.parquet" for name in _LOG] if mapped else []
    openers = {".npy": map_array, ".faiss": opened} if mapped else None
    content: Content = read_sealed(folder, KIND, FORMAT, openers=openers, without=left).built(_content)
    return content


def _content(sealed: Sealed) -> Content:
    config, mapped = sealed.config, bool(sealed.opened)
    weights = sealed.tensors("weights.safetensors")
    settings = config["config"]
    meta = MetaConfig(
        factors=FactorConfig(**settings["factors"]),
        head=HeadConfig(**settings["head"]),
        training=TrainConfig(**settings["training"]),
        text_rank=settings["text_rank"],
        liked_from=settings["liked_from"],
        predict=tuple(settings["predict"]),
        events=settings["events"],
    )
    center, project, popular = (weights[f"basis.{name}"] for name in ("center", "project", "popular"))
    basis = Basis(center, project, popular, config["new_gain"])
    about = config["channels"]
    prior = Prior(**{field.name: weights[f"prior.{field.name}"] for field in fields(Prior)})
    gains = Gains(**{field.name: weights[f"gains.{field.name}"] for field in fields(Gains)})
    head = PreferenceHead({name: Traits(**one["traits"]) for name, one in about.items()}, meta.head, prior, gains)
    events = Events(tuple(config["events"]["names"]), config["events"]["goals"])
    known = Attributes(tuple(_attribute(one, weights) for one in config["attributes"]))
    record = sealed.text("fit_log.jsonl")
    model = Model(basis, head, config["encoder"], config["axes"], record, events, known, _ratings(sealed))
    channels = {name: _channel(name, one, sealed) for name, one in about.items()}
    rows, values, counts, new, hidden = (
        sealed.tensor(f"items.{name}.npy") for name in ("lists.rows", "lists.values", "counts", "new", "hidden")
    )
    space, table = ItemSpace(channels, Lists(rows, values), counts, new), sealed.table("items.parquet")
    columns = config["template"]["fields"]
    template = TextTemplate(**{**config["template"], "fields": None if columns is None else tuple(columns)})
    kind = config["index"]
    index: ItemIndex = ExactIndex()
    if "index.faiss" in sealed:
        found = sealed.opened["index.faiss"] if mapped else opened(sealed.files.pop("index.faiss"))
        index = FaissIndex.checked(kind, found, len(space), space.dim)
    catalog = Catalog.of(table["item_id"], table["text"].to_list())
    archive = None
    if config["archive"] is not None and not mapped:
        archive = Archive.read({name: sealed.table(f"{name}.parquet") for name in _LOG}, config["archive"], events)
        archive = replayed(archive, sealed, catalog)
    _check(model, catalog, space, hidden, whole=not mapped)
    journal = archive is not None and bool(sealed.entries)
    return Content(model, catalog, space, index, hidden, meta, template, kind, archive, journal)


@torch.inference_mode()
def _check(model: Model, catalog: Catalog, space: ItemSpace, hidden: Tensor, *, whole: bool) -> None:
    """Refuse files that are whole and do not fit together: shapes, rows and numbers, and that a user can be served.

    Args:
        model: basis, head, and more.
        catalog: the items.
        space: what is known of each.
        hidden: True for hidden ones.
        whole: look at every number; False: at those of the first items alone, the others are on disk.

    Raises:
        ValueError: saying what does not fit.
    """
    sizes = {
        "ids": catalog.size,
        "distinct ids": len(catalog.ids.unique()),
        "hidden": len(hidden),
        "lists": len(space.lists.rows),
    }
    sizes |= {"counts": len(space.counts), "new": len(space.new)}
    for name, channel in space.channels.items():
        sides = {"item": channel.item, "support": channel.support, "norm": channel.norm}
        sizes |= {f"{name}.{side}": len(value) for side, value in sides.items() if value is not None}
        looked_at = {side: value if whole else value[:_SOME] for side, value in sides.items() if value is not None}
        if bad := [side for side, value in looked_at.items() if not bool(torch.isfinite(value).all())]:
            raise ValueError(f"{name}.{bad[0]} holds numbers that are not finite")
    if space.text_of(torch.zeros(1, dtype=torch.long)).shape[1] != model.basis.project.shape[1]:
        raise ValueError("vectors of texts are of another width than the basis makes them")
    if odd := {name: size for name, size in sizes.items() if size != len(space)}:
        raise ValueError(f"{len(space):,} vectors, but {odd}")
    rows, trust = (part if whole else part[:_SOME] for part in (space.lists.rows, space.lists.values))
    if rows.numel() and not (
        int(rows.min()) >= 0 and int(rows.max()) < len(space) and bool(torch.isfinite(trust).all())
    ):
        raise ValueError("neighbour lists name rows that there are not")
    one = Histories.padded(np.zeros(1, np.int64), np.ones(1, np.int64))
    user = model.head.adapt(space, one, model.coefficients)
    size = len(space) if whole else min(_SOME, len(space))
    scores = space.scores(user) if whole else space.scores_among(torch.arange(size), user)
    if scores.shape != (1, size) or not bool(torch.isfinite(scores).all()):
        raise ValueError("a user of the first item has no finite scores")


def _ratings(sealed: Sealed) -> Ratings | None:
    if "ratings.safetensors" not in sealed:
        return None
    table = sealed.table("ratings.parquet")
    rows = dict(zip(table["item_id"].to_list(), table["row"].to_list(), strict=True))
    return Ratings(RatingHead.of(sealed.tensors("ratings.safetensors")), rows)


def _attribute(about: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Attribute:
    name, edges = about["name"], np.array(about["edges"], np.float64)
    return Attribute(name, about["kind"], edges, tuple(about["names"]), weights[f"attributes.{name}"].numpy())


def _channel(name: str, about: Mapping[str, Any], sealed: Sealed) -> Channel:
    def part(which: str) -> Tensor | None:
        file = f"items.{name}.{which}.npy"
        return sealed.tensor(file) if file in sealed else None

    item, persistence, centres = part("item"), about["persistence"], part("centres")
    if item is None or (persistence is None) != (centres is None):
        raise ValueError(f"{name} has no item side, or half of a clock")
    support = item if about["shared"] else part("support")
    clock = None if centres is None else Clock(centres, persistence)
    return Channel(name, Traits(**about["traits"]), support, item, part("norm"), clock)
