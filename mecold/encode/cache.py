"""Vectors on disk, keyed by the text they encode: append-only, memory-mapped, safe under several processes at once.

One folder per encoder fingerprint holds `keys.bin` (32 bytes a row, sha256 of fingerprint and text) and `rows.bin`
(float32, and behind each vector its CRC-32). A writer takes a file lock, cuts off what a killed writer left half-written,
appends the rows first and their keys last; so a key that is there always has its vector, and readers need no lock.
"""

import hashlib
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64

KEY_BYTES = 32


def default_cache_folder() -> Path:
    """`$MECOLD_CACHE`, else `mecold` in the user's cache folder."""
    named = os.environ.get("MECOLD_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(named) if named else Path(base) / "mecold"


class VectorCache:
    """Vectors of one encoder.

    Args:
        folder: where the caches of all encoders lie.
        fingerprint: identity of the encoder; part of every key.
        dim: width of the vectors.

    Raises:
        OSError: here and in `append`, if the folder cannot be written.
    """

    def __init__(self, folder: Path, fingerprint: str, dim: int) -> None:
        self._folder = folder / hashlib.sha256(fingerprint.encode()).hexdigest()[:24]
        self._folder.mkdir(parents=True, exist_ok=True)
        self._fingerprint = fingerprint.encode()
        self._row = np.dtype([("vector", "<f4", (dim,)), ("crc", "<u4")])
        self._keys = self._folder / "keys.bin"
        self._rows = self._folder / "rows.bin"
        # replaced as one value, so that threads may read while another refreshes
        self._index = (np.empty((0, KEY_BYTES), np.uint8), np.empty(0, np.int64))

    def keys(self, texts: Sequence[str]) -> np.ndarray:
        """The key of each text, `(texts, 32)` bytes."""
        start = hashlib.sha256(self._fingerprint + b"\0")
        digests = bytearray()
        for text in texts:
            digest = start.copy()
            digest.update(text.encode("utf-8", "surrogatepass"))
            digests += digest.digest()
        return np.frombuffer(bytes(digests), np.uint8).reshape(-1, KEY_BYTES)

    def find(self, keys: np.ndarray) -> Int64[np.ndarray, " keys"]:
        """Row of each key in the cache, -1 where it is not there (yet)."""
        known, order = self._refreshed()
        if not len(known) or not len(keys):
            return np.full(len(keys), -1, np.int64)
        heads, wanted = _heads(known)[order], _heads(keys)
        at = np.searchsorted(heads, wanted)
        candidates = order[np.minimum(at, len(heads) - 1)]
        return np.where((known[candidates] == keys).all(1), candidates, -1)

    def read(
        self, rows: Int64[np.ndarray, " rows"]
    ) -> tuple[Float32[np.ndarray, "rows dim"], Bool[np.ndarray, " rows"]]:
        """Vectors of these rows, copied out of the memory map; and which of them are what was written."""
        count = self._rows.stat().st_size // self._row.itemsize
        found = np.asarray(np.memmap(self._rows, self._row, "r", shape=(count,))[rows])
        return found["vector"].astype(np.float32), found["crc"] == _crcs(found["vector"])

    def append(self, keys: np.ndarray, vectors: Float32[np.ndarray, "keys dim"]) -> None:
        """Add vectors; keys that another process added meanwhile are left out."""
        with self._lock():
            self._repair()
            new = self.find(keys) < 0
            with self._rows.open("ab") as file:
                file.write(self._packed(vectors[new]).tobytes())
                file.flush()
                os.fsync(file.fileno())
            with self._keys.open("ab") as file:
                file.write(keys[new].tobytes())

    def mend(self, rows: Int64[np.ndarray, " rows"], vectors: Float32[np.ndarray, "rows dim"]) -> None:
        """Write vectors over damaged ones."""
        with self._lock(), self._rows.open("r+b") as file:
            for row, packed in zip(rows.tolist(), self._packed(vectors), strict=True):
                file.seek(row * self._row.itemsize)
                file.write(packed.tobytes())

    def _packed(self, vectors: Float32[np.ndarray, "rows dim"]) -> np.ndarray:
        packed = np.empty(len(vectors), self._row)
        packed["vector"] = vectors
        packed["crc"] = _crcs(packed["vector"])
        return packed

    def __len__(self) -> int:
        return len(self._refreshed()[0])

    @contextmanager
    def _lock(self) -> Iterator[None]:
        import fcntl  # POSIX only: without it there is no cache, but everything else

        with (self._folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _rows_on_disk(self) -> int:
        sizes = [path.stat().st_size if path.exists() else 0 for path in (self._keys, self._rows)]
        return min(sizes[0] // KEY_BYTES, sizes[1] // self._row.itemsize)

    def _repair(self) -> None:
        """Cut off what a killed writer left behind the last whole row."""
        rows = self._rows_on_disk()
        for path, width in ((self._keys, KEY_BYTES), (self._rows, self._row.itemsize)):
            if path.exists() and path.stat().st_size != rows * width:
                os.truncate(path, rows * width)

    def _refreshed(self) -> tuple[np.ndarray, np.ndarray]:
        """All keys on disk, and their order by head."""
        index, rows = self._index, self._rows_on_disk()
        if rows != len(index[0]):
            with self._keys.open("rb") as file:
                known = np.frombuffer(file.read(rows * KEY_BYTES), np.uint8).reshape(-1, KEY_BYTES)
            index = self._index = (known, np.argsort(_heads(known), kind="stable"))
        return index


def _crcs(vectors: Float32[np.ndarray, "rows dim"]) -> np.ndarray:
    return np.fromiter((zlib.crc32(vector.tobytes()) for vector in vectors), np.uint32, len(vectors))


def _heads(keys: np.ndarray) -> np.ndarray:
    """The first 8 bytes as a number: sha256 is uniform, and the whole key is compared afterwards."""
    return np.ascontiguousarray(keys[:, :8]).view(np.uint64)[:, 0]
