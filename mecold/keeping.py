"""A recommender on disk, and handed from one process to another: by the files that `save` writes, and no pickle among them."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mecold.encode.encoder import Encoder
from mecold.sealed import bytes_of, folder_of
from mecold.stock import Stock
from mecold.store import load_model, save_model
from mecold.values import path

K = TypeVar("K", bound="Keeping")


class Keeping(Stock):
    """Saved, loaded, copied."""

    def save(self, folder: str | Path) -> None:
        """Write the model to a folder: no pickle, checksummed, written beside the target and then renamed."""
        model, shelf = self._ready()
        settings = {"config": asdict(self.config), "template": asdict(self.template), "index": self._kind}
        save_model(path(folder, "folder"), model, shelf.packed(), self._statistics, settings)

    @classmethod
    def load(
        cls: type[K],
        folder: str | Path,
        *,
        encoder: Encoder | None = None,
        device: str = "auto",
        progress: bool = False,
    ) -> K:
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
        content = load_model(path(folder, "folder"))
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
        return type(self)._revived, (
            files,
            self._encoder,
            own | {"config": self.config, "index": self._kind},
            self._rng,
        )

    @classmethod
    def _revived(
        cls: type[K],
        files: Mapping[str, bytes] | None,
        encoder: Encoder | None,
        own: Mapping[str, Any],
        rng: np.random.Generator,
    ) -> K:
        made = cls(encoder, **own, rng=rng)
        if files is not None:
            with folder_of(files) as folder:
                content = load_model(folder)
            made._state, made._statistics = content.place(made._device), content.statistics
        return made
