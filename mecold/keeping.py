"""A recommender on disk, and handed from one process to another: by the files that `save` writes, and no pickle among them."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mecold.data.archive import Archive
from mecold.encode.encoder import Encoder
from mecold.errors import ModelFileError
from mecold.model import Model
from mecold.renewing import survey_of, updated
from mecold.sealed import bytes_of, folder_of
from mecold.space.shelf import Shelf
from mecold.stock import Stock
from mecold.store import Content, load_model, save_model
from mecold.values import flag, path

K = TypeVar("K", bound="Keeping")


class Keeping(Stock):
    """Saved, loaded, copied."""

    _mapped = False  # True where its items are on disk

    def save(self, folder: str | Path, *, log: bool = True) -> None:
        """Write the model to a folder: no pickle, checksummed, written beside the target and then renamed.

        What others have observed into the folder since this model was loaded stays in its journal. Where others have *saved* rows
        that this one has not read, or have forgotten users, nothing is written.

        Args:
            folder: the target.
            log: with the histories of all users, so that `observe`, `refresh` and `forget_user` can go on; False leaves out
                everything that belongs to one user.

        Raises:
            ModelFileError: if the folder holds something else, or a model that has read more than this one, or cannot be written;
                or if this model was loaded with `mapped=True`.
        """
        if self._mapped:
            raise ModelFileError(
                "This model was loaded with mapped=True, to serve: it has no log, and its items were not verified. Load it "
                "without, and save that; other processes can load the same folder."
            )
        with self._lock:
            (model, shelf), archive = self._ready(), self._archive
        settings = {"config": asdict(self.config), "template": asdict(self.template), "index": self._kind}
        save_model(path(folder, "folder"), model, shelf.packed(), archive, settings, log=flag(log, "log"))

    @classmethod
    def load(
        cls: type[K],
        folder: str | Path,
        *,
        encoder: Encoder | None = None,
        device: str = "auto",
        progress: bool = False,
        mapped: bool = False,
    ) -> K:
        """Read a model that `save` wrote.

        Args:
            folder: the model's folder.
            encoder: needed to add or update items, and for attributes that are texts; must be the one the model was fitted with.
            device: where scoring runs.
            progress: show progress bars.
            mapped: to serve a large catalogue: what there is of each item stays on disk, is read when it is used, and lies in
                memory once for all processes that map the same folder. It is not verified then, and the log is not read:
                `observe`, `refresh`, `forget_user` and `save` are for a model that was loaded whole. Changes of the catalogue
                work, in memory.

        Raises:
            ModelFileError: if the folder is missing, damaged, changed or of a newer format.
            EncoderError: if `encoder` is not the one the model was fitted with.
        """
        content = load_model(path(folder, "folder"), mapped=flag(mapped, "mapped"))
        made = cls(
            encoder, config=content.config, template=content.template, index=content.kind, device=device,
            progress=progress,
        )  # fmt: skip
        made._place(content)
        made._mapped = mapped
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
            made._place(content)
        return made

    def _place(self, content: Content) -> None:
        """Take what was loaded; what its journal holds is counted."""
        self._state, self._archive = content.place(self._device), content.archive
        if content.journal:
            self._state = self._counted(content.archive)

    def _counted(self, archive: Archive | None) -> tuple[Model, Shelf]:
        """Model and shelf with what waits in an archive; what it is added to is kept, as long as log and catalogue stay."""
        model, shelf = self._ready()
        assert archive is not None
        known = self._surveyed
        if known is None or known[0] is not archive.log or known[1] is not shelf.catalog:
            known = self._surveyed = archive.log, shelf.catalog, survey_of(model, shelf, archive, self.config)
        return model, updated(model, shelf, archive, known[2])
