"""One model, one folder: JSON, safetensors and parquet, no pickle; written beside the target, then renamed.

`config.json` holds the format version, every setting, and the sha256 of every other file; `load_model` verifies all of it
before it builds anything. Nothing in a model folder is ever executed.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mecold.data.catalog import Catalog, TextTemplate
from mecold.errors import ModelFileError, few
from mecold.space.statistics import FactorConfig
from mecold.heads.preference import HeadConfig, PreferenceHead
from mecold.space.index import ExactIndex, FaissIndex, ItemIndex
from mecold.meta.config import MetaConfig, TrainConfig
from mecold.model import Model
from mecold.space.lists import Neighbours
from mecold.space.shelf import Shelf
from mecold.space.space import ItemSpace, ItemTower, Layout
from mecold.version import __version__

FORMAT = 4


@dataclass(frozen=True)
class Content:
    """What a model folder holds, on the CPU."""

    model: Model
    catalog: Catalog
    space: ItemSpace
    index: ItemIndex
    config: MetaConfig
    template: TextTemplate
    kind: str

    def place(self, device: torch.device) -> tuple[Model, Shelf]:
        """Model and shelf on a device."""
        model = self.model.to(device)
        return model, Shelf.of(self.catalog, self.space.to(device), self.kind, self.index)


def save_model(folder: Path, model: Model, shelf: Shelf, settings: Mapping[str, Any]) -> None:
    """Write a model; the previous one stays whole until the new one is complete on disk.

    Args:
        folder: the target; may hold an older model, but nothing else.
        model: tower, head, encoder fingerprint, log.
        shelf: items without dead rows.
        settings: `config`, `template` and `index`, as JSON values.

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
        _write(fresh, model, shelf, settings)
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


def _write(folder: Path, model: Model, shelf: Shelf, settings: Mapping[str, Any]) -> None:
    state = {f"tower.{name}": value for name, value in model.tower.state_dict().items()}
    state |= {f"head.{name}": value for name, value in model.head.state_dict().items()}
    save_file(_plain(state), folder / "weights.safetensors")
    items = {"support": shelf.space.support, "item": shelf.space.item, "popularity": shelf.space.popularity}
    items |= {"cold": shelf.space.cold, "near.rows": shelf.space.near.rows, "near.values": shelf.space.near.values}
    save_file(_plain(items), folder / "items.safetensors")
    pl.DataFrame({"item_id": shelf.catalog.ids, "text": shelf.catalog.texts}).write_parquet(folder / "items.parquet")
    (folder / "fit_log.jsonl").write_text(model.log, "utf-8")
    if isinstance(shelf.index, FaissIndex):
        shelf.index.write(folder / "index.faiss")
    layout = model.head.layout
    config = {
        "format": FORMAT,
        "mecold": __version__,
        "encoder": model.encoder,
        "layout": {"names": layout.names, "widths": layout.widths, "alike": layout.alike},
        "text_dim": len(model.tower.center),
        **settings,
        "sha256": {path.name: _hash(path) for path in sorted(folder.iterdir())},
    }
    config["self"] = _hash_of(config)
    (folder / "config.json").write_text(json.dumps(config, indent=1), "utf-8")
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
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
    config = _checked_config(folder)
    try:
        return _content(folder, config)
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError, pl.exceptions.PolarsError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"The model in '{folder}' does not fit together: {error!r}. Save it again.") from error


def _checked_config(folder: Path) -> dict[str, Any]:
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
    if version != FORMAT:
        raise ModelFileError(
            f"The model in '{folder}' has format {version}, written by mecold {config.get('mecold')}; this is mecold "
            f"{__version__}, which reads format {FORMAT}. Update mecold, or fit and save again."
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


def _aligned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in memory of torch's own: what a file maps may be aligned otherwise, and products then differ in the last bit."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _content(folder: Path, config: Mapping[str, Any]) -> Content:
    weights, items = (_aligned(load_file(folder / f"{name}.safetensors")) for name in ("weights", "items"))
    settings = config["config"]
    meta = MetaConfig(
        factors=FactorConfig(**settings["factors"]),
        head=HeadConfig(**settings["head"]),
        training=TrainConfig(**settings["training"]),
        text_rank=settings["text_rank"],
        liked_from=settings["liked_from"],
    )
    layout = Layout(tuple(config["layout"]["names"]), tuple(config["layout"]["widths"]), config["layout"]["alike"])
    tower, head = ItemTower(config["text_dim"], layout), PreferenceHead(layout, meta.head)
    for name, module in (("tower.", tower), ("head.", head)):
        module.load_state_dict({k.removeprefix(name): v for k, v in weights.items() if k.startswith(name)})
        module.requires_grad_(requires_grad=False).eval()
    model = Model(tower, head, config["encoder"], (folder / "fit_log.jsonl").read_text("utf-8"))
    near = Neighbours(items["near.rows"], items["near.values"])
    space = ItemSpace(items["support"], items["item"], near, items["popularity"], items["cold"])
    table = pl.read_parquet(folder / "items.parquet")
    if table.height != len(space.item):
        raise ModelFileError(f"The model in '{folder}' has {table.height:,} ids for {len(space.item):,} vectors.")
    fields = config["template"]["fields"]
    template = TextTemplate(**{**config["template"], "fields": None if fields is None else tuple(fields)})
    kind = config["index"]
    index = FaissIndex.read(kind, folder / "index.faiss") if "index.faiss" in config["sha256"] else ExactIndex()
    catalog = Catalog.of(table["item_id"], table["text"].to_list())
    return Content(model, catalog, space, index, meta, template, kind)
