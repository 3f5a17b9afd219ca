"""One model, one folder: JSON, safetensors and parquet, no pickle; written beside the target, then renamed.

`config.json` holds the format version, every setting, and the sha256 of every other file; `load_model` verifies all of it
before it builds anything. Nothing in a model folder is ever executed.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mecold.data.attributes import Attribute, Attributes
from mecold.data.catalog import Catalog, TextTemplate
from mecold.data.events import Events
from mecold.errors import ModelFileError, few
from mecold.heads.preference import Gains, HeadConfig, PreferenceHead, Prior
from mecold.meta.config import MetaConfig, TrainConfig
from mecold.model import Model
from mecold.space.basis import Basis
from mecold.space.channel import Channel, Traits
from mecold.space.clock import Clock
from mecold.space.index import ExactIndex, FaissIndex, ItemIndex
from mecold.space.lists import Lists
from mecold.space.settings import FactorConfig
from mecold.space.shelf import Shelf
from mecold.space.space import ItemSpace
from mecold.space.statistics import Kept, Statistics
from mecold.version import __version__

FORMAT = 7


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
    statistics: Kept | None

    def place(self, device: torch.device) -> tuple[Model, Shelf]:
        """Model and shelf on a device."""
        model = self.model.to(device)
        return model, Shelf.of(self.catalog, self.space.to(device), self.kind, self.index, self.hidden.to(device))


def save_model(folder: Path, model: Model, shelf: Shelf, kept: Kept | None, settings: Mapping[str, Any]) -> None:
    """Write a model; the previous one stays whole until the new one is complete on disk.

    Args:
        folder: the target; may hold an older model, but nothing else.
        model: basis, head, encoder fingerprint, log.
        shelf: items without dead rows.
        kept: statistics of the log; None for a model without any.
        settings: `config`, `template` and `index`, as JSON values.

    Raises:
        ModelFileError: if the folder holds something that is not a model.
    """
    write_whole(folder, lambda fresh: _write(fresh, model, shelf, kept, settings))


def write_whole(folder: Path, write: Callable[[Path], None]) -> None:
    """Write a folder beside the target, then rename it; the previous one stays whole until the new one is complete.

    Args:
        folder: the target; may hold an older model, but nothing else.
        write: fills an empty folder, ending with `seal`.

    Raises:
        ModelFileError: if the folder holds something that is not a model.
    """
    folder = folder.absolute()
    check_target(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex[:8]
    fresh, old = (folder.with_name(f".{folder.name}.{kind}-{mark}") for kind in ("new", "old"))
    try:
        fresh.mkdir()
        write(fresh)
        if folder.exists():
            folder.rename(old)
        try:
            fresh.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def check_target(folder: Path) -> None:
    """Refuse to replace anything but a model.

    Raises:
        ModelFileError: if the folder holds something else, or other files beside a model.
    """
    if folder.exists() and not _is_model(folder):
        raise ModelFileError(
            f"'{folder}' exists and is not a mecold model, or holds other files too; nothing was written. Name another "
            "folder."
        )


def _is_model(folder: Path) -> bool:
    """True for an empty folder, or one that holds a mecold model and nothing else: it will be replaced as a whole."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        return "format" in config and names <= {"config.json", *config["sha256"]}
    except (OSError, ValueError, KeyError, TypeError):
        return not names


def _write(folder: Path, model: Model, shelf: Shelf, kept: Kept | None, settings: Mapping[str, Any]) -> None:
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
        if channel.support is not None and not channel.shared:
            items[f"{name}.support"] = channel.support
        if channel.clock is not None:
            items[f"{name}.centres"] = channel.clock.centres
    save_file(plain(items), folder / "items.safetensors")
    pl.DataFrame({"item_id": shelf.catalog.ids, "text": shelf.catalog.texts}).write_parquet(folder / "items.parquet")
    if kept is not None:
        save_file(plain(_sparse_parts(kept.statistics)), folder / "statistics.safetensors")
        pl.DataFrame({"item_id": kept.items}).write_parquet(folder / "statistics.parquet")
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
    config = {
        "format": FORMAT,
        "mecold": __version__,
        "encoder": model.encoder,
        "axes": model.axes,
        "channels": channels,
        "events": asdict(model.events),
        "attributes": [
            {"name": one.name, "kind": one.kind, "edges": one.edges.tolist(), "names": one.names}
            for one in model.attributes.columns
        ],
        "new_gain": dict(basis.new_gain),
        **settings,
    }
    seal(folder, config)


def seal(folder: Path, config: Mapping[str, Any]) -> None:
    """Write `config.json` with the sha256 of every other file of the folder, and bring all of it to the disk.

    Args:
        folder: complete but for this file.
        config: what it says, as JSON values.
    """
    config = {**config, "sha256": {path.name: _hash(path) for path in sorted(folder.iterdir())}}
    config["self"] = _hash_of(config)
    (folder / "config.json").write_text(json.dumps(config, indent=1), "utf-8")
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _sparse_parts(statistics: Statistics) -> dict[str, Tensor]:
    """Dense arrays as they are, sparse matrices as the three arrays they consist of."""
    parts: dict[str, Tensor] = {}
    for field in fields(statistics):
        value = getattr(statistics, field.name)
        if isinstance(value, np.ndarray):
            parts[field.name] = torch.from_numpy(value)
        elif value is not None:
            for part in ("data", "indices", "indptr"):
                parts[f"{field.name}.{part}"] = torch.from_numpy(getattr(value, part))
    return parts


def _statistics(parts: Mapping[str, Tensor]) -> Statistics:
    """What `_sparse_parts` took apart."""
    found: dict[str, Any] = {name: value.numpy() for name, value in parts.items() if "." not in name}
    for name in {name.partition(".")[0] for name in parts if "." in name}:
        data, indices, indptr = (parts[f"{name}.{part}"].numpy() for part in ("data", "indices", "indptr"))
        found[name] = sp.csr_matrix((data, indices, indptr), (len(indptr) - 1, len(indptr) - 1))
    return Statistics(**{field.name: found.get(field.name) for field in fields(Statistics)})  # type: ignore[arg-type]


def plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors takes them: on the CPU, contiguous, none sharing memory."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_of(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def load_model(folder: Path) -> Content:
    """Read and verify a model.

    Raises:
        ModelFileError: naming what is missing, damaged, changed, or newer than this version of mecold.
    """
    config = checked_config(folder, FORMAT)
    try:
        return _content(folder, config)
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError, pl.exceptions.PolarsError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"The model in '{folder}' does not fit together: {error!r}. Save it again.") from error


def checked_config(folder: Path, known: int, kind: str = "recommender") -> dict[str, Any]:
    """What the `config.json` of a folder says, once every file is as it was saved.

    Args:
        folder: of a model.
        known: the format that this version reads.
        kind: what the folder should hold.

    Raises:
        ModelFileError: naming what is missing, damaged, changed, of another kind, or newer than this version of mecold.
    """
    path = folder / "config.json"
    if not path.is_file():
        kept = sorted(folder.absolute().parent.glob(f".{folder.name}.old-*"))
        hint = f" A save was interrupted: the previous model lies in '{kept[-1]}'; rename it." if kept else ""
        raise ModelFileError(f"There is no mecold model in '{folder}' (no config.json).{hint}")
    try:
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
        version, sums = config["format"], dict(config["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"'{path}' is damaged: {error!r}. Restore it, or fit and save again.") from error
    if (found := config.get("kind", "recommender")) != kind:
        raise ModelFileError(f"The model in '{folder}' is a {found}, not a {kind}. Load it as what it is.")
    if version != known:
        raise ModelFileError(
            f"The model in '{folder}' has format {version}, written by mecold {config.get('mecold')}; this is mecold "
            f"{__version__}, which reads format {known}. Update mecold, or fit and save again."
        )
    stated = config.pop("self", None)
    bad = [] if stated == _hash_of(config) else ["config.json"]
    for name, expected in sums.items():
        file = folder / Path(name).name
        if not file.is_file() or _hash(file) != expected:
            bad.append(file.name if file.is_file() else f"{file.name} (missing)")
    if bad:
        raise ModelFileError(
            f"The model in '{folder}' was damaged or changed after it was saved: {few(bad, 9)}. "
            "Restore these files, or fit and save again."
        )
    return config


def aligned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in memory of torch's own: what a file maps may be aligned otherwise, and products then differ in the last bit."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _content(folder: Path, config: Mapping[str, Any]) -> Content:
    weights, items = (aligned(load_file(folder / f"{name}.safetensors")) for name in ("weights", "items"))
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
    record = (folder / "fit_log.jsonl").read_text("utf-8")
    model = Model(basis, head, config["encoder"], config["axes"], record, events, known)
    channels = {name: _channel(name, one, items) for name, one in about.items()}
    space = ItemSpace(channels, Lists(items["lists.rows"], items["lists.values"]), items["counts"], items["new"])
    table = pl.read_parquet(folder / "items.parquet")
    hidden = items["hidden"]
    if not table.height == len(space) == len(hidden):
        raise ModelFileError(f"The model in '{folder}' has {table.height:,} ids for {len(space):,} vectors.")
    columns = config["template"]["fields"]
    template = TextTemplate(**{**config["template"], "fields": None if columns is None else tuple(columns)})
    kind = config["index"]
    index = FaissIndex.read(kind, folder / "index.faiss") if "index.faiss" in config["sha256"] else ExactIndex()
    catalog = Catalog.of(table["item_id"], table["text"].to_list())
    kept = None
    if "statistics.safetensors" in config["sha256"]:
        ids = pl.read_parquet(folder / "statistics.parquet")["item_id"]
        kept = Kept(ids, _statistics(load_file(folder / "statistics.safetensors")))
    return Content(model, catalog, space, index, hidden, meta, template, kind, kept)


def _attribute(about: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Attribute:
    name, edges = about["name"], np.array(about["edges"], np.float64)
    return Attribute(name, about["kind"], edges, tuple(about["names"]), weights[f"attributes.{name}"].numpy())


def _channel(name: str, about: Mapping[str, Any], items: Mapping[str, Tensor]) -> Channel:
    item = items[f"{name}.item"]
    support = item if about["shared"] else items.get(f"{name}.support")
    persistence = about["persistence"]
    clock = None if persistence is None else Clock(items[f"{name}.centres"], persistence)
    return Channel.of(name, Traits(**about["traits"]), support, item, clock)
