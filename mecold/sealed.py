"""One thing, one folder: JSON, safetensors and parquet, no pickle; written beside the target, then renamed.

`config.json` holds what the folder is, the version of its format, every setting, and the sha256 of every other file;
`read_sealed` verifies all of it before anything is built. Nothing in such a folder is ever executed.
"""

import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from mecold.errors import ModelFileError, few
from mecold.version import __version__


def write_sealed(folder: Path, kind: str, form: int, put: Callable[[Path], Mapping[str, Any]]) -> None:
    """Write a folder; the previous one stays whole until the new one is complete on disk.

    Args:
        folder: the target; may hold an older one of the same kind, but nothing else.
        kind: what it is, such as `"model"`.
        form: version of its format.
        put: writes files into a folder, and returns what `config.json` says beside their hashes.

    Raises:
        ModelFileError: if the target holds something else.
    """
    folder = folder.absolute()
    check_target(folder, kind)
    folder.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex[:8]
    fresh, old = (folder.with_name(f".{folder.name}.{state}-{mark}") for state in ("new", "old"))
    try:
        fresh.mkdir()
        config = {"format": form, "kind": kind, "mecold": __version__, **put(fresh)}
        config["sha256"] = {path.name: _hash(path) for path in sorted(fresh.iterdir())}
        config["self"] = _hash_of(config)
        (fresh / "config.json").write_text(json.dumps(config, indent=1), "utf-8")
        for path in fresh.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
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


def check_target(folder: Path, kind: str) -> None:
    """Refuse to replace anything but one of the same kind.

    Raises:
        ModelFileError: if the folder holds something else, or other files beside it.
    """
    if folder.exists() and not _is_one(folder, kind):
        raise ModelFileError(
            f"'{folder}' exists and is not a mecold {kind}, or holds other files too; nothing was written. Name another folder."
        )


def _is_one(folder: Path, kind: str) -> bool:
    """True for an empty folder, or one that holds such a thing and nothing else: it will be replaced as a whole."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        return (
            config["format"] >= 0
            and config.get("kind", "model") == kind
            and names <= {"config.json", *config["sha256"]}
        )
    except (OSError, ValueError, KeyError, TypeError):
        return not names


def read_sealed(folder: Path, kind: str, form: int) -> dict[str, Any]:
    """What `config.json` says, after every file was verified.

    Raises:
        ModelFileError: naming what is missing, damaged, changed, of another kind, or newer than this version of mecold.
    """
    path = folder / "config.json"
    if not path.is_file():
        kept = sorted(folder.absolute().parent.glob(f".{folder.name}.old-*"))
        hint = f" A save was interrupted: the previous one lies in '{kept[-1]}'; rename it." if kept else ""
        raise ModelFileError(f"There is no mecold {kind} in '{folder}' (no config.json).{hint}")
    try:
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
        version, sums = config["format"], dict(config["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"'{path}' is damaged: {error!r}. Restore it, or fit and save again.") from error
    if (found := config.get("kind", "model")) != kind:
        raise ModelFileError(f"'{folder}' holds a mecold {found}, not a {kind}. Load it as what it is.")
    if version != form:
        raise ModelFileError(
            f"The {kind} in '{folder}' has format {version}, written by mecold {config.get('mecold')}; this is mecold "
            f"{__version__}, which reads format {form}. Update mecold, or fit and save again."
        )
    stated = config.pop("self", None)
    bad = [] if stated == _hash_of(config) else ["config.json"]
    for name, expected in sums.items():
        file = folder / Path(name).name
        if not file.is_file() or _hash(file) != expected:
            bad.append(file.name if file.is_file() else f"{file.name} (missing)")
    if bad:
        raise ModelFileError(
            f"The {kind} in '{folder}' was damaged or changed after it was saved: {few(bad, 9)}. "
            "Restore these files, or fit and save again."
        )
    return config


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


def aligned(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in memory of torch's own: what a file maps may be aligned otherwise, and products then differ in the last bit."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_of(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
