"""One thing, one folder: JSON, safetensors, npy and parquet, no pickle; read once, switched at once.

`config.json` holds what the folder is, the version of its format, every setting, and the sha256 of every other file.
`read_sealed` reads each file once into memory and verifies what it read, so that what is built is what was verified, whoever
saves meanwhile; files that are opened where they lie are not verified. Nothing in such a folder is ever executed. The sums
protect from accidents, not from people: who can write the folder can write them anew.
"""

import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import safetensors.torch
import torch
from torch import Tensor

from mecold.errors import MecoldError, ModelFileError, few, foreign, told
from mecold.forks import check_frames
from mecold.journal import JOURNAL, carry, drop, held, is_journal, names_of
from mecold.swap import age_of, claimed, clear, leftovers_of, stays, switch, sync
from mecold.version import __version__

_CONFIG = "config.json"
_ARRAY = ".npy"
_PLACE = re.compile(r"files-[0-9a-f]{8}")
_ATTEMPTS = 200  # of reading a folder that others save meanwhile
_PAUSE = 0.005  # seconds between two
_NO_MATTER = {"lost+found", f".{_CONFIG}.part"}


@dataclass(frozen=True)
class Sealed:
    """What a folder held, read once and verified.

    Args:
        folder: where it was.
        config: what `config.json` says.
        files: the content of every other file; who asks for one takes it out, so that no file lies in memory twice.
        entries: what was added since it was saved, by name, the oldest first (see `journal`).
        opened: what was opened where it lies: it is read when it is used, and was not verified.
    """

    folder: Path
    config: Mapping[str, Any]
    files: dict[str, bytes]
    entries: Mapping[str, bytes] = field(default_factory=dict)
    opened: Mapping[str, Any] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.config["sha256"]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of a safetensors file, in memory of torch's own: that of a file may be aligned otherwise, and products
        then differ in the last bit.
        """
        found = safetensors.torch.load(self.files.pop(name))
        return {key: value.clone() for key, value in found.items()}

    def tensor(self, name: str) -> Tensor:
        """The tensor of an npy file: in memory of torch's own, or mapped."""
        if name in self.opened:
            return torch.from_numpy(self.opened[name])
        return torch.from_numpy(np.load(io.BytesIO(self.files.pop(name)), allow_pickle=False)).clone()

    def table(self, name: str) -> pl.DataFrame:
        """The table of a parquet file."""
        return pl.read_parquet(io.BytesIO(self.files.pop(name)))

    def text(self, name: str) -> str:
        """A text file."""
        return self.files.pop(name).decode("utf-8")

    def built(self, make: Callable[["Sealed"], Any]) -> Any:
        """What a function makes of it.

        Raises:
            ModelFileError: should it fail, whatever the library behind raises.
        """
        what = f"The {self.config.get('kind', 'model')} in '{self.folder}' does not fit together"
        with foreign(ModelFileError, what, "Save it again."):
            return make(self)


def write_sealed(
    folder: Path,
    kind: str,
    form: int,
    put: Callable[[Path], Mapping[str, Any]],
    carried: Callable[[Path], list[str]] = lambda _: [],
) -> None:
    """Write a folder; the previous one stays whole until the new one is complete on disk, and is then replaced in one step.

    A link is followed. A folder that cannot be replaced (a mount point, the working directory) is filled: the files go into
    a folder in it that `config.json` names, and that file is what is switched.

    Args:
        folder: the target; may hold an older one of the same kind, but nothing else.
        kind: what it is, such as `"model"`.
        form: version of its format.
        put: writes files into a folder, and returns what `config.json` says beside their hashes.
        carried: which entries of a folder's journal are to lie in the new one's; may refuse to replace it.

    Raises:
        ModelFileError: if the target holds something else, or cannot be written; the previous one is whole then.
    """
    check_frames(f"Saving a {kind}")
    folder = Path(os.path.realpath(folder))
    check_target(folder, kind)
    mark, inside = uuid.uuid4().hex[:8], stays(folder)
    fresh = folder / f"files-{mark}" if inside else folder.with_name(f".{folder.name}.new-{mark}")
    way_out = "The previous one, if any, is as it was. Make room, or name a folder that can be written."
    with foreign(ModelFileError, f"The {kind} could not be saved to '{folder}'{_room(folder)}", way_out):
        fresh.parent.mkdir(parents=True, exist_ok=True)
        named = False
        try:
            with claimed(fresh):
                _fill(fresh, kind, form, put, fresh.name if inside else None)
                with held(folder) if folder.is_dir() else nullcontext():
                    kept = carried(folder) if folder.is_dir() else []
                    if inside:
                        _point(folder, fresh)
                        named = True
                        drop(folder, kept)
                    else:
                        carry(folder, fresh, kept)
                        switch(fresh, folder)
        finally:
            if not named:
                shutil.rmtree(fresh, ignore_errors=True)
        clear(leftovers_of(folder))


def _fill(fresh: Path, kind: str, form: int, put: Callable[[Path], Mapping[str, Any]], place: str | None) -> None:
    """Write all files, and have them on disk, with the rights that a file has here."""
    config = {"format": form, "kind": kind, "mecold": __version__, **put(fresh)}
    config |= {"place": place} if place else {}
    files = sorted(fresh.iterdir())
    config["bytes"] = {path.name: path.stat().st_size for path in files}
    config["sha256"] = {path.name: _hash(path) for path in files}
    config["self"] = _hash_of(config)
    (fresh / _CONFIG).write_text(json.dumps(config, indent=1), "utf-8")
    mode = (fresh / _CONFIG).stat().st_mode & 0o777
    for path in fresh.iterdir():
        path.chmod(mode)  # a library may have made its file readable to its owner alone
        sync(path)
    sync(fresh)


def _point(folder: Path, fresh: Path) -> None:
    """Let a folder's `config.json` be the new one, in one step, and clear away what the old one named."""
    before = [path for path in folder.iterdir() if path != fresh and path.name not in {_CONFIG, JOURNAL, *_NO_MATTER}]
    (fresh / _CONFIG).replace(folder / _CONFIG)
    sync(folder)
    for path in before:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _room(folder: Path) -> str:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return f" ({shutil.disk_usage(there).free / 1e6:,.0f} MB are free there)"


def check_target(folder: Path, kind: str) -> None:
    """Refuse to replace anything but one of the same kind.

    Raises:
        ModelFileError: if the folder holds something else, or other files beside it.
    """
    folder = Path(os.path.realpath(folder))
    if folder.exists() and not _is_one(folder, kind):
        raise ModelFileError(
            f"'{folder}' exists and is not a mecold {kind}, or holds other files too; nothing was written. Name another folder."
        )


def _is_one(folder: Path, kind: str) -> bool:
    """True for an empty folder, or one that holds such a thing and nothing else: it will be replaced as a whole."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir() if not _PLACE.fullmatch(path.name)} - _NO_MATTER
    try:
        config = json.loads((folder / _CONFIG).read_text("utf-8"))
        names -= {JOURNAL} if is_journal(folder / JOURNAL) else set()
        return config["format"] >= 0 and config.get("kind", "model") == kind and names <= {_CONFIG, *config["sha256"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return not names


def read_sealed(
    folder: Path,
    kind: str,
    form: int,
    *,
    openers: Mapping[str, Callable[[Path], Any]] | None = None,
    without: Collection[str] = (),
) -> Sealed:
    """What a folder holds, every file of it verified. A folder that is saved meanwhile is read anew, until it is one whole.

    Args:
        folder: the folder.
        kind: what it is, such as `"model"`.
        form: version of its format.
        openers: suffix -> what opens such files where they lie; they are neither read nor verified. What maps a file keeps it,
            whoever saves later.
        without: files that are not looked at.

    Raises:
        ModelFileError: naming what is missing, damaged, changed, of another kind, or newer than this version of mecold.
    """
    check_frames(f"Loading a {kind}")
    for _ in range(_ATTEMPTS):
        before = _identity(folder)
        try:
            found = _read(folder, kind, form, openers or {}, without)
            if _identity(folder) == before:  # its files and its entries are of one save
                return found
        except ModelFileError:
            if _identity(folder) == before and not (before is None and _being_switched(folder)):
                raise
        time.sleep(_PAUSE)
    raise ModelFileError(
        f"'{folder}' was saved over and over while it was read. Load it when less is written there, or load a copy."
    )


def _identity(folder: Path) -> tuple[int, ...] | None:
    """What tells one save from the next."""
    try:
        found = (folder / _CONFIG).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def _being_switched(folder: Path) -> bool:
    """True where a folder is missing for a moment only (see `swap`)."""
    return any((age_of(one) or 0.0) < 1 for one in leftovers_of(folder.absolute()))


def read_config(folder: Path, kind: str, form: int) -> dict[str, Any]:
    """What a folder's `config.json` says; the files that it names are not looked at.

    Raises:
        ModelFileError: if there is none, it is damaged, or of another kind or format.
    """
    path = folder / _CONFIG
    if not path.is_file():
        raise ModelFileError(f"There is no mecold {kind} in '{folder}' (no config.json).{_kept(folder, kind, form)}")
    with foreign(ModelFileError, f"'{path}' is damaged", "Restore it, or fit and save again."):
        config: dict[str, Any] = json.loads(path.read_bytes())
        version, place = config["format"], config.get("place")
        if place is not None and not _PLACE.fullmatch(place):
            raise ValueError(f"place {place!r}")
    if (found := config.get("kind", "model")) != kind:
        raise ModelFileError(f"'{folder}' holds a mecold {found}, not a {kind}. Load it as what it is.")
    if version != form:
        raise ModelFileError(
            f"The {kind} in '{folder}' has format {version}, written by mecold {config.get('mecold')}; this is mecold "
            f"{__version__}, which reads format {form}. Update mecold, or fit and save again."
        )
    return config


def _read(
    folder: Path, kind: str, form: int, openers: Mapping[str, Callable[[Path], Any]], without: Collection[str] = ()
) -> Sealed:
    config = read_config(folder, kind, form)
    stated, place = config.pop("self", None), config.get("place")
    bad = [] if stated == _hash_of(config) else [_CONFIG]
    files: dict[str, bytes] = {}
    opened: dict[str, Any] = {}
    sizes = config.get("bytes")
    for name, expected in config["sha256"].items():
        if name in without:
            continue
        file = folder / (place or "") / Path(name).name
        try:
            if file.suffix in openers and file.is_file():
                if not isinstance(sizes, dict) or file.stat().st_size != sizes.get(name):
                    bad.append(f"{file.name} (cut)")
                else:
                    opened[name] = openers[file.suffix](file)
                continue
            files[name] = file.read_bytes() if file.is_file() else b""
        except OSError as error:
            bad.append(f"{file.name} (cannot be read, {told(error)})")
            continue
        if not file.is_file() or hashlib.sha256(files[name]).hexdigest() != expected:
            bad.append(file.name if file.is_file() else f"{file.name} (missing)")
    if bad:
        raise ModelFileError(
            f"The {kind} in '{folder}' was damaged or changed after it was saved: {few(bad, 9)}. "
            "Restore these files, or fit and save again."
        )
    with foreign(ModelFileError, f"The journal in '{folder}' cannot be read", "Restore it, or save again."):
        entries = {name: (folder / JOURNAL / name).read_bytes() for name in names_of(folder)}
    return Sealed(folder, config, files, entries, opened)


def map_array(file: Path) -> np.ndarray:
    """An array on disk, in pages that are read when they are used; nothing that is written to it gets there.

    Raises:
        ModelFileError: if it is cut, or no array.
    """
    with foreign(ModelFileError, f"'{file}' is damaged", "Restore it, or fit and save again."):
        found: np.ndarray = np.load(file, mmap_mode="c", allow_pickle=False)
        return found


def write_arrays(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write each tensor to an npy file of its own, whose numbers lie as torch aligns them: they can be mapped."""
    for name, value in tensors.items():
        np.save(folder / f"{name}{_ARRAY}", value.detach().cpu().contiguous().numpy(), allow_pickle=False)


def _kept(folder: Path, kind: str, form: int) -> str:
    """Where the newest whole one lies that an interrupted save left, in words."""
    for one in leftovers_of(folder.absolute()):
        try:
            _read(one, kind, form, {})
        except MecoldError:
            continue
        return f" A save was interrupted: the previous one lies in '{one}'; rename it."
    return " Name a folder that `save` wrote."


def bytes_of(save: Callable[[Path], None]) -> dict[str, bytes]:
    """What a function writes into a folder, file by file."""
    with tempfile.TemporaryDirectory() as place:
        save(Path(place) / "it")
        return {path.name: path.read_bytes() for path in sorted((Path(place) / "it").iterdir())}


@contextmanager
def folder_of(files: Mapping[str, bytes]) -> Iterator[Path]:
    """A folder with such files, for as long as it is needed."""
    with tempfile.TemporaryDirectory() as place:
        for name, data in files.items():
            (Path(place) / Path(name).name).write_bytes(data)
        yield Path(place)


def plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in main memory, laid out as a file wants them."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_of(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
