"""A classifier on disk: JSON, safetensors and parquet, no pickle; whole or not at all, and verified before it is read."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors.torch import save_file
from torch import Tensor

from mecold.data.catalog import Catalog
from mecold.heads.classes import ClassHeads, ClassRules, ClassSpace
from mecold.meta.classes import ClassConfig, Outlook, Taught
from mecold.sealed import Sealed, plain, read_sealed, write_sealed

KIND, FORMAT = "classifier", 1


@dataclass(frozen=True)
class ClassifierContent:
    """What the folder of a classifier holds.

    Args:
        taught: what was learned.
        labels: the known classes.
        catalog: ids and texts of the items.
        encoder: fingerprint of the encoder.
        separator: between the levels of a label.
        config: settings of the fit.
        log: of the fit, as JSON lines.
    """

    taught: Taught
    labels: tuple[str, ...]
    catalog: Catalog
    encoder: str
    separator: str
    config: ClassConfig
    log: str

    def tensors(self) -> dict[str, Tensor]:
        """All numbers, by name."""
        parts: Mapping[str, Mapping[str, Tensor]] = {
            "space": self.taught.space.tensors(),
            "rules": self.taught.rules.tensors(),
            "outlook": self.taught.outlook.tensors(),
            "known": {field.name: getattr(self.taught.known, field.name) for field in fields(ClassHeads)},
        }
        return {f"{part}.{name}": value for part, found in parts.items() for name, value in found.items()}


def save_classifier(folder: Path, content: ClassifierContent) -> None:
    """Write a classifier; the previous one stays whole until the new one is complete on disk.

    Raises:
        ModelFileError: if the folder holds something that is not a model.
    """

    def put(fresh: Path) -> dict[str, Any]:
        save_file(plain(content.tensors()), fresh / "weights.safetensors")
        table = {"item_id": content.catalog.ids, "text": content.catalog.texts}
        pl.DataFrame(table).write_parquet(fresh / "items.parquet")
        (fresh / "labels.json").write_text(json.dumps(list(content.labels)), "utf-8")
        (fresh / "fit_log.jsonl").write_text(content.log, "utf-8")
        return {"encoder": content.encoder, "separator": content.separator, "config": asdict(content.config)}

    write_sealed(folder, KIND, FORMAT, put)


def load_classifier(folder: Path) -> ClassifierContent:
    """Read and verify a classifier.

    Raises:
        ModelFileError: naming what is missing, damaged, changed, or newer than this version of mecold.
    """
    content: ClassifierContent = read_sealed(folder, KIND, FORMAT).built(_content)
    return content


def _content(sealed: Sealed) -> ClassifierContent:
    config, tensors = sealed.config, sealed.tensors("weights.safetensors")

    def part(kind: type, name: str) -> Any:
        return kind(**{field.name: tensors[f"{name}.{field.name}"] for field in fields(kind)})

    taught = Taught(
        part(ClassSpace, "space"), part(ClassRules, "rules"), part(Outlook, "outlook"), part(ClassHeads, "known")
    )
    labels = tuple(json.loads(sealed.text("labels.json")))
    if len(labels) != taught.known.weight.shape[1] or not all(
        bool(torch.isfinite(one).all()) for one in tensors.values()
    ):
        raise ValueError(
            f"{len(labels):,} labels for {taught.known.weight.shape[1]:,} heads, or numbers that are not finite"
        )
    table = sealed.table("items.parquet")
    catalog = Catalog.of(table["item_id"], table["text"].to_list())
    log = sealed.text("fit_log.jsonl")
    return ClassifierContent(
        taught, labels, catalog, config["encoder"], config["separator"], ClassConfig(**config["config"]), log
    )
