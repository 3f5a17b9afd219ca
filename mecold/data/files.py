"""Files, wherever they lie: a path with `~`, a glob, a folder or an address becomes tables, whole or batch by batch.

It knows kinds of files, not what stands in them. What lies elsewhere, or is packed, is copied to this machine first, so that
every kind is read in one way and in bounded memory.
"""

import errno
import glob
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import fsspec
import polars as pl

from mecold.data.delimited import scan_csv, why_not
from mecold.errors import InvalidDataError, few

Kind: TypeAlias = Literal["parquet", "ipc", "csv", "jsonl"]

KINDS: dict[str, Kind] = {
    ".parquet": "parquet", ".pq": "parquet", ".arrow": "ipc", ".ipc": "ipc", ".feather": "ipc",
    ".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl",
}  # fmt: skip
"""Ending of a name -> what such a file is; text may end in .gz besides."""

ENDINGS = ".parquet, .arrow, .csv, .tsv or .jsonl, texts also with .gz behind"

_ADDRESS = re.compile(r"^([a-z][a-z0-9+.-]+):/+", re.IGNORECASE)  # two letters at least: C:/ is a disk
_PACKED = ".gz"
_ROWS = 1 << 17


@dataclass(frozen=True)
class File:
    """One file.

    Args:
        name: its path, or its address with the scheme.
        kind: what it holds.
        packed: gzip lies around it.
        remote: fsspec opens it.
    """

    name: str
    kind: Kind
    packed: bool = False
    remote: bool = False

    @property
    def stamp(self) -> dict[str, Any]:
        """What tells this file from the same one with another content, without reading it: size, and time or version."""
        if not self.remote:
            found = Path(self.name).stat()
            return {"name": str(Path(self.name).absolute()), "bytes": found.st_size, "changed": found.st_mtime_ns}
        with told(self.name, "input"):
            system, path = fsspec.core.url_to_fs(self.name)
            about = system.info(path)
        marks = [about[mark] for mark in ("ETag", "etag", "md5", "LastModified", "mtime", "created") if mark in about]
        return {"name": self.name, "bytes": about["size"], "changed": str(marks[0] if marks else None)}

    @contextmanager
    def here(self, what: str) -> Iterator[Path]:
        """The file as it is on this machine and not packed, for as long as it is needed."""
        if not (self.packed or self.remote):
            yield Path(self.name)
            return
        with tempfile.TemporaryDirectory(prefix="mecold-") as place:
            copy = Path(place) / f"copy{'.tsv' if self.name.lower().removesuffix(_PACKED).endswith('.tsv') else ''}"
            with told(self.name, what):
                opened = fsspec.open(self.name, "rb", compression="gzip" if self.packed else None)
                with opened as source, copy.open("wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
            yield copy

    def read(self, what: str) -> pl.DataFrame:
        """All of it."""
        with self.here(what) as path, told(self.name, what, self.kind):
            return _scan(self.kind, path).collect()

    def columns(self, what: str) -> list[str]:
        """Names of the columns; no more is read."""
        with self.here(what) as path, told(self.name, what, self.kind):
            return list(_scan(self.kind, path).collect_schema())

    def rows(self, what: str) -> int | None:
        """How many there are, where that is known without reading them or fetching the file."""
        if self.remote or self.kind not in ("parquet", "ipc"):
            return None
        with told(self.name, what, self.kind):
            return int(_scan(self.kind, Path(self.name)).select(pl.len()).collect().item())

    def batches(self, what: str, rows: int = _ROWS) -> Iterator[pl.DataFrame]:
        """Its rows in order, at most so many at a time; memory does not grow with the file.

        Args:
            what: whose file it is in messages.
            rows: of a batch.
        """
        with self.here(what) as path, told(self.name, what, self.kind):
            for batch in _scan(self.kind, path).collect_batches(chunk_size=rows, maintain_order=True):
                for start in range(0, batch.height, rows):
                    yield batch[start : start + rows]


def files_of(source: str | Path | Sequence[str | Path], what: str) -> tuple[File, ...]:
    """The files that a caller means, by name.

    Args:
        source: a path or an address, or several; `~`, `*`, `?` and `[...]` are understood, and a folder stands for all that
            lies in it, at any depth, names that begin with `_` or `.` left out.
        what: whose files these are in messages.

    Raises:
        InvalidDataError: if there is none, one is of no known kind, or they are of several kinds.
    """
    given = [source] if isinstance(source, str | Path) else list(source)
    names = [name for one in given for name in _names(_address(one), what)]
    files = tuple(dict.fromkeys(_file(name, what) for name in names))
    if len(kinds := sorted({file.kind for file in files})) > 1:
        raise InvalidDataError(
            f"The {what} lie in files of several kinds ({', '.join(kinds)}). Name one kind: 'in/*.csv'."
        )
    return files


def read_files(source: str | Path | Sequence[str | Path], what: str) -> tuple[pl.DataFrame, Kind]:
    """All rows of all files that a caller means, file after file, and of what kind these are.

    Raises:
        InvalidDataError: if there is none, one cannot be read, or they have different columns.
    """
    files = files_of(source, what)
    frames = [file.read(what) for file in files]
    for file, frame in zip(files, frames, strict=True):
        if odd := set(frame.columns) ^ set(frames[0].columns):
            raise InvalidDataError(
                f"'{file.name}' and '{files[0].name}' have different columns: {few(sorted(odd))} stands in one of them. Give "
                "both the same."
            )
    if len(frames) == 1:
        return frames[0], files[0].kind
    with told(files[0].name, what):
        joined = pl.concat([frame.select(frames[0].columns) for frame in frames], how="vertical_relaxed")
    return joined, files[0].kind


@contextmanager
def told(name: str, what: str, kind: Kind | None = None) -> Iterator[None]:
    """Whatever the libraries that open and read a file raise comes out as one error that names it."""
    try:
        yield
    except InvalidDataError as error:
        raise error if f"'{name}'" in str(error) else InvalidDataError(f"'{name}': {error}") from error
    except (MemoryError, GeneratorExit):
        raise
    except ImportError as error:
        raise InvalidDataError(f"'{name}' needs a package that is not installed: {error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # it is not this file that is at fault
            raise
        raise _unreadable(name, what, kind, error) from error
    except Exception as error:  # of polars, zlib, fsspec and whatever library fsspec loads
        raise _unreadable(name, what, kind, error) from error


def _unreadable(name: str, what: str, kind: Kind | None, error: Exception) -> InvalidDataError:
    line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")
    why = why_not(error) if kind == "csv" else f"{line}. Restore that file, or write it anew."
    return InvalidDataError(f"Cannot read the {what} from '{name}': {why}")


def _scan(kind: Kind, path: Path) -> pl.LazyFrame:
    if kind == "csv":
        return scan_csv(path)
    if kind == "jsonl":
        return pl.scan_ndjson(path, infer_schema_length=None)
    return pl.scan_parquet(path, glob=False) if kind == "parquet" else pl.scan_ipc(path, glob=False)


def _address(source: str | Path) -> str:
    """A name as it was meant: `Path` makes one slash of two, and nobody else knows `~`."""
    return _ADDRESS.sub(r"\1://", str(source))


def _names(name: str, what: str) -> list[str]:
    if _ADDRESS.match(name):
        with told(name, what):
            system, path = fsspec.core.url_to_fs(name)
            if system.isfile(path):
                return [name]
            if system.isdir(path):
                root = path.rstrip("/")
                found = [one for one in system.find(path) if _listed(one[len(root) :])]
            else:
                found = system.glob(path)
            found = [str(system.unstrip_protocol(one)) for one in found]
    else:
        path = Path(name).expanduser()
        if path.is_dir():
            found = [str(one) for one in path.rglob("*") if one.is_file() and _listed(str(one.relative_to(path)))]
        elif path.exists() or not glob.has_magic(name):
            found = [str(path)] if path.is_file() or _kind(name) is None else []
        else:
            found = [one for one in glob.glob(str(path), recursive=True) if Path(one).is_file()]  # noqa: PTH207
    if not found:
        folder = not _ADDRESS.match(name) and Path(name).expanduser().is_dir()
        where = f"in the folder '{name}'" if folder else f"'{name}'"
        raise InvalidDataError(f"There is no file {where} to read the {what} from. Check the path.")
    return sorted(found)


def _listed(inside: str) -> bool:
    """False for what programs leave beside their data: _SUCCESS, .part.crc."""
    return not any(part.startswith(("_", ".")) for part in Path(inside).parts)


def _kind(name: str) -> tuple[Kind, bool] | None:
    stem = name.lower()
    packed = stem.endswith(_PACKED)
    kind = KINDS.get(Path(stem.removesuffix(_PACKED)).suffix)
    return None if kind is None or (packed and kind not in ("csv", "jsonl")) else (kind, packed)


def _file(name: str, what: str) -> File:
    known = _kind(name)
    if known is None:
        raise InvalidDataError(f"Cannot read the {what} from '{name}': the name must end in {ENDINGS}.")
    return File(name, *known, remote=bool(_ADDRESS.match(name)))
