"""Several encoders as one."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float32

from mecold.encode.encoder import Encoder, encode_or_zero
from mecold.encode.taught import taught_by
from mecold.errors import InvalidDataError


class SideBySide:
    """Encoders whose vectors stand side by side: two texts are as near as their vectors are on the average of the encoders.

    A trained encoder beside its base knows what the shop's users do with words, and forgets nothing that the base knew. It costs
    a reading of each text by every encoder, and vectors as wide as all together.

    Args:
        parts: two encoders or more.

    Raises:
        InvalidDataError: if there are fewer.
    """

    def __init__(self, *parts: Encoder) -> None:
        if len(parts) < 2:
            raise InvalidDataError(f"SideBySide takes two encoders or more; it got {len(parts)}.")
        self.parts = parts

    @property
    def fingerprint(self) -> str:
        """Those of the parts, in order."""
        return " beside ".join(f"({part.fingerprint})" for part in self.parts)

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> Float32[np.ndarray, "texts dim"]:
        """One row per text: each encoder's vector, scaled to length 1, behind the one before."""
        return beside([encode_or_zero(part, texts, progress=progress) for part in self.parts])

    def taught(self, texts: Sequence[str]) -> Bool[np.ndarray, " texts"]:
        """True for texts that any of the encoders was trained on."""
        known: Bool[np.ndarray, " texts"] = np.any([taught_by(part, texts) for part in self.parts], axis=0)
        return known

    def unread(self, texts: Sequence[str]) -> list[int]:
        """Places of the texts that none of the encoders can read, as far as they can tell."""
        told = [set(part.unread(texts)) if hasattr(part, "unread") else set() for part in self.parts]
        return sorted(set.intersection(*told))


def beside(parts: Sequence[np.ndarray]) -> Float32[np.ndarray, "texts dim"]:
    """Vectors of several encoders, each scaled to length 1, one behind the other."""
    return np.concatenate([one / np.linalg.norm(one, axis=1, keepdims=True).clip(1e-12) for one in parts], axis=1)


def with_both(base: Encoder, trained: Encoder) -> dict[str, Encoder]:
    """What a shop can take after a training: `base`, `trained`, or `both` side by side."""
    return {"base": base, "trained": trained, "both": SideBySide(base, trained)}


def encoded(
    encoders: Mapping[str, Encoder], texts: Sequence[str], *, progress: bool = False
) -> dict[str, Float32[np.ndarray, "texts _"]]:
    """Vectors of texts by every encoder; one that stands beside others too reads once.

    Raises:
        EncoderError: if an encoder does not return one finite row per text.
    """
    known: dict[str, np.ndarray] = {}

    def read(encoder: Encoder) -> np.ndarray:
        if isinstance(encoder, SideBySide):
            return beside([read(part) for part in encoder.parts])
        if encoder.fingerprint not in known:
            known[encoder.fingerprint] = encode_or_zero(encoder, texts, progress=progress)
        return known[encoder.fingerprint]

    return {name: read(encoder) for name, encoder in encoders.items()}
