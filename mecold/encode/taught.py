"""Which item texts an encoder was trained on. It knows these better than it will know a new one, and nobody may be misled.

A trained encoder's folder lists a hash of each text; the texts themselves are not in it.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt64

from mecold.errors import EncoderError

TAUGHT = "mecold_taught.npy"


def _hashes(texts: Sequence[str]) -> UInt64[np.ndarray, " texts"]:
    digests = (hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(digests), np.uint64)


def write_taught(folder: Path, texts: Sequence[str], before: UInt64[np.ndarray, " some"]) -> None:
    """Leave word in a model folder of the texts that it was trained on, now and before."""
    np.save(folder / TAUGHT, np.union1d(_hashes(texts), before))


def read_taught(folder: Path) -> UInt64[np.ndarray, " some"]:
    """What `write_taught` left; empty for a model that was not trained here.

    Raises:
        EncoderError: if the file cannot be read.
    """
    path = folder / TAUGHT
    if not path.is_file():
        return np.empty(0, np.uint64)
    try:
        found: np.ndarray = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise EncoderError(f"'{path}' cannot be read ({error}); train the encoder again.") from error
    if found.ndim != 1 or found.dtype != np.uint64:
        raise EncoderError(f"'{path}' is not a list of hashes; train the encoder again.")
    return found


def taught_among(hashes: UInt64[np.ndarray, " some"], texts: Sequence[str]) -> Bool[np.ndarray, " texts"]:
    """True for texts that are in the list, and for empty ones if it lists any: they are no example of a text not seen."""
    known: Bool[np.ndarray, " texts"] = np.isin(_hashes(texts), hashes)
    if len(hashes):
        known |= np.array([text == "" for text in texts], bool)
    return known


def taught_by(encoder: object, texts: Sequence[str]) -> Bool[np.ndarray, " texts"]:
    """True for texts that an encoder was trained on; all False for encoders that do not say (a method `taught`).

    Raises:
        EncoderError: if it says it otherwise.
    """
    taught = getattr(encoder, "taught", None)
    if not callable(taught):
        return np.zeros(len(texts), bool)
    found = np.asarray(taught(texts))
    if found.shape != (len(texts),) or found.dtype != bool:
        raise EncoderError(
            f"The encoder's taught() must return a bool per text; it returned {found.dtype} {found.shape}."
        )
    return found
