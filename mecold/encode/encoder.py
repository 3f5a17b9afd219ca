"""Texts to vectors: real BERT encoders, local and reproducible, with an on-disk cache.

The only room that imports `transformers`, and lazily. It never runs code that lies in a model folder: weights are
safetensors or ONNX graphs, `trust_remote_code` is off, and the bundled weights are read as data and checked against their sha256.
"""

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Float32, Int64, Shaped
from torch import Tensor
from tqdm import tqdm

from mecold.data.frames import FrameLike, read_frame
from mecold.devices import device_of
from mecold.encode.cache import VectorCache, default_cache_folder
from mecold.encode.model_folder import DEFAULT_MODEL, Pooling, find_model, read_settings, weights_hash, words_hash
from mecold.encode.onnx import ONNX, OnnxModel
from mecold.encode.taught import read_taught, taught_among
from mecold.encode.unread import unread_texts
from mecold.errors import DataWarning, EncoderError, InvalidDataError, few, foreign
from mecold.values import path

_CHUNK = 1024  # texts between two writes to the cache: what a killed run loses at most


@runtime_checkable
class Encoder(Protocol):
    """What mecold needs of an encoder. `fingerprint` changes whenever the vectors would."""

    @property
    def fingerprint(self) -> str:
        """Identity of the encoder, stored with every model."""
        ...

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> Float32[np.ndarray, "texts dim"]:
        """One float32 row per text."""
        ...


@dataclass(frozen=True)
class PrecomputedEncoder:
    """Vectors that the caller already has, one per text.

    Args:
        vectors: text -> row of `matrix`.
        matrix: float32 vectors.
        name: name of their origin. A fitted model knows its encoder by this name, the width, and the vectors that texts
            of its catalogue have; so vectors for more texts fit, and others for the same texts do not.
    """

    vectors: dict[str, int]
    matrix: Float32[np.ndarray, "texts dim"]
    name: str = "precomputed"

    @classmethod
    def of(cls, texts: Sequence[str], matrix: np.ndarray, name: str = "precomputed") -> "PrecomputedEncoder":
        """From a list of texts and a matrix with one finite row for each.

        Raises:
            InvalidDataError: if the shapes differ, values are not finite, or a text stands twice with other vectors.
        """
        if isinstance(texts, str) or not (isinstance(texts, Sequence) and all(isinstance(text, str) for text in texts)):
            raise InvalidDataError(f"texts={texts!r:.60} must be a list of texts, such as frame['text'].to_list().")
        with foreign(InvalidDataError, "The vectors are no matrix", "Pass an array of numbers, one row per text."):
            matrix = np.ascontiguousarray(matrix, dtype=np.float32)
        if matrix.ndim != 2 or len(matrix) != len(texts):
            raise InvalidDataError(f"{len(texts):,} texts need a matrix of as many rows; this one is {matrix.shape}.")
        if not np.isfinite(matrix).all():
            bad = np.flatnonzero(~np.isfinite(matrix).all(1))
            raise InvalidDataError(f"{len(bad):,} vectors are not finite (rows {few(bad.tolist())}).")
        rows: dict[str, int] = {}
        for row, text in enumerate(texts):
            first = rows.setdefault(text, row)
            if not np.array_equal(matrix[first], matrix[row]):
                raise InvalidDataError(f"The text {text[:60]!r} has two different vectors (rows {first} and {row}).")
        return cls(rows, matrix, name)

    @classmethod
    def read(cls, source: FrameLike, *, name: str = "precomputed") -> "PrecomputedEncoder":
        """From a frame or parquet file with a `text` column and a `vector` column of equally long lists."""
        frame = read_frame(source, "vectors")
        if not {"text", "vector"} <= set(frame.columns):
            raise InvalidDataError(f"The vectors need the columns 'text' and 'vector'; they have {few(frame.columns)}.")
        widths = frame["vector"].list.len() if frame["vector"].dtype == pl.List else pl.Series([1])
        if widths.n_unique() != 1:
            raise InvalidDataError("The lists of the column 'vector' differ in length.")
        return cls.of(frame["text"].to_list(), np.array(frame["vector"].to_list(), dtype=np.float32), name)

    @property
    def fingerprint(self) -> str:
        """Name and width; vectors for more texts leave it as it is."""
        return f"{self.name}:{self.matrix.shape[1]}"

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> Float32[np.ndarray, "texts dim"]:  # noqa: ARG002
        """Look the texts up.

        Raises:
            EncoderError: naming the texts that have no vector.
        """
        missing = [text for text in texts if text not in self.vectors]
        if missing:
            raise EncoderError(
                f"{len(missing):,} texts have no precomputed vector: {few(missing)}. Add theirs to the encoder."
            )
        return self.matrix[[self.vectors[text] for text in texts]]


class TextEncoder:
    """Any sentence-transformers or plain BERT-like model, read through `transformers`.

    Args:
        model: hub name or local folder. The default is looked for in the hub cache, then in the bundled package.
        pooling: `"mean"`, `"cls"` or `"last"` (token; for decoder-only models); None takes what the model's own folder says,
            mean otherwise.
        max_length: tokens per text; None takes the model's own setting.
        normalize: scale vectors to length 1; None takes the model's own setting, True otherwise.
        prompt: text put in front of every text; None takes the model's default prompt, if any.
        batch_tokens: about how many tokens (padding included) go through the model at once.
        dtype: of the computation; None is float32 on CPU (bfloat16 is 3x slower on AVX2) and bfloat16 on CUDA.
        device: a torch device, or `"auto"`.
        cache: folder of the vector cache; None switches it off. One that cannot be written is a warning.

    Raises:
        EncoderError: if the model is nowhere to be found, uses modules that cannot be read, or has unsafe weights.
    """

    def __init__(
        self,
        model: str | Path = DEFAULT_MODEL,
        *,
        pooling: Pooling | None = None,
        max_length: int | None = None,
        normalize: bool | None = None,
        prompt: str | None = None,
        batch_tokens: int = 2048,
        dtype: torch.dtype | None = None,
        device: str = "auto",
        cache: str | Path | None = "default",
    ) -> None:
        name = str(path(model, "model"))
        with foreign(EncoderError, f"There is no model {name!r:.100}", "Pass a folder, or a name on the hub."):
            self.folder = folder = find_model(name)
        weights = weights_hash(folder)
        own, self._taught = read_settings(folder), read_taught(folder)
        self.device = device_of(device)
        dtype = dtype or (torch.bfloat16 if self.device.type == "cuda" else torch.float32)
        self._tokenizer, self._model = load_model(folder, dtype)
        self._model.to(self.device)
        self.pooling = pooling or own.pooling
        self.normalize = own.normalize if normalize is None else normalize
        self.prompt = own.prompt if prompt is None else prompt
        longest = longest_text(self._tokenizer, self._model)
        self.max_length = min(max_length or own.max_length or longest, longest)
        self.batch_tokens = batch_tokens
        self.dim = int(self._model.config.hidden_size)
        settings = json.dumps([self.pooling, self.normalize, self.prompt, self.max_length])
        self._fingerprint = f"{weights[:16]}:{words_hash(folder)[:16]}:{settings}"
        self._made_of: dict[str, Any] = {
            "pooling": self.pooling, "max_length": self.max_length, "normalize": self.normalize, "prompt": self.prompt,
            "batch_tokens": batch_tokens, "dtype": dtype, "device": device, "cache": cache,
        }  # fmt: skip
        place = default_cache_folder() if cache == "default" else cache
        # dtypes share a fingerprint (a model fitted on a GPU serves on a CPU) but not a cache (same call, same bytes)
        self._cache: VectorCache | None = None
        if place is not None:
            try:
                self._cache = VectorCache(Path(place), f"{self._fingerprint}:{dtype}", self.dim)
            except OSError as error:
                self._do_without_cache(place, error)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, in this process or another, reads the same folder again."""
        return partial(TextEncoder, self.folder, **self._made_of), ()

    @property
    def fingerprint(self) -> str:
        """Hash of the weights and of the tokenizer, and every setting that changes a vector by more than rounding."""
        return self._fingerprint

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> Float32[np.ndarray, "texts dim"]:
        """One float32 vector per text; only texts that the cache does not hold go through the model.

        Args:
            texts: any texts; one longer than `max_length` tokens is cut by the tokenizer.
            progress: show a progress bar.
        """
        if self._cache is None or not texts:
            return self._encode_new(texts, progress=progress)
        keys = self._cache.keys(texts)
        rows = self._cache.find(keys)
        if (rows < 0).any():
            _, first = np.unique(keys[rows < 0].view("V32"), return_index=True)
            missing = np.flatnonzero(rows < 0)[np.sort(first)]
            try:
                self._fill(self._cache, texts, keys, missing, progress=progress)
            except OSError as error:
                self._do_without_cache("its folder", error)
                return self._encode_new(texts, progress=progress)
            rows = self._cache.find(keys)
        return self._mended(self._cache, texts, rows)

    def unread(self, texts: Sequence[str]) -> list[int]:
        """Places of the texts that the model cannot read: most of their words are unknown to its tokenizer."""
        return unread_texts(self._tokenizer, [text[: 16 * self.max_length] for text in texts])

    def taught(self, texts: Sequence[str]) -> Bool[np.ndarray, " texts"]:
        """True for texts that the model was trained on by `mecold.train_encoder`."""
        return taught_among(self._taught, texts)

    def _do_without_cache(self, place: str | Path, error: OSError) -> None:
        """Go on without the cache, and say so once."""
        self._cache = None
        warnings.warn(
            f"Cannot write the vector cache to {place}: {error}. Texts are encoded again in every process. Name another folder "
            "(cache=... or $MECOLD_CACHE), or pass cache=None.",
            DataWarning, stacklevel=3,
        )  # fmt: skip

    def _mended(
        self, cache: VectorCache, texts: Sequence[str], rows: Int64[np.ndarray, " texts"]
    ) -> Float32[np.ndarray, "texts dim"]:
        """Vectors of the cache; damaged ones are made again, and put in their place."""
        vectors, sound = cache.read(rows)
        if sound.all():
            return vectors
        damaged = np.flatnonzero(~sound).tolist()
        vectors[damaged] = self._encode_new([texts[i] for i in damaged], progress=False)
        warnings.warn(
            f"{len(damaged):,} vectors of the cache were damaged on disk; they were made again.",
            DataWarning,
            stacklevel=3,
        )
        try:
            cache.mend(rows[damaged], vectors[damaged])
        except OSError as error:
            self._do_without_cache("its folder", error)
        return vectors

    def _fill(
        self, cache: VectorCache, texts: Sequence[str], keys: np.ndarray, missing: np.ndarray, *, progress: bool
    ) -> None:
        # by length across the whole job, longest first: less padding, and memory runs out at once or never
        missing = missing[np.argsort([-len(texts[i]) for i in missing], kind="stable")]
        with tqdm(total=len(missing), desc="encoding texts", unit="text", disable=not progress) as bar:
            for start in range(0, len(missing), _CHUNK):
                part = missing[start : start + _CHUNK]
                cache.append(keys[part], self._encode_new([texts[i] for i in part], progress=False))
                bar.update(len(part))

    @torch.inference_mode()
    def _encode_new(self, texts: Sequence[str], *, progress: bool) -> Float32[np.ndarray, "texts dim"]:
        out = np.zeros((len(texts), self.dim), np.float32)
        if not texts:
            return out
        limit = 16 * self.max_length  # no token is this long on average; spares the tokenizer a 10 MB text
        prompted = [(self.prompt + text)[:limit] for text in texts]
        tokens = self._tokenizer(prompted, truncation=True, max_length=self.max_length)["input_ids"]
        order = sorted(range(len(texts)), key=lambda i: -len(tokens[i]))
        with tqdm(total=len(texts), desc="encoding texts", unit="text", disable=not progress) as bar:
            while order:
                size = max(1, self.batch_tokens // max(1, len(tokens[order[0]])))
                batch, order = order[:size], order[size:]
                padded = self._tokenizer.pad({"input_ids": [tokens[i] for i in batch]}, return_tensors="pt")
                out[batch] = self._pool(padded.to(self.device)).float().cpu().numpy()
                bar.update(len(batch))
        return out

    def _pool(self, batch: Any) -> Tensor:
        hidden: Tensor = self._model(**batch).last_hidden_state.float()
        pooled = pooled_by(self.pooling, hidden, batch["attention_mask"])
        return torch.nn.functional.normalize(pooled, dim=1) if self.normalize else pooled


def load_model(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Tokenizer and model of a folder, read as data, ready to encode on the CPU.

    Raises:
        EncoderError: if they cannot be loaded.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer
    from transformers.utils import logging

    quiet: Callable[[], None] = logging.disable_progress_bar
    quiet()
    with foreign(EncoderError, f"Cannot load the model in '{folder}'", "Fetch it again, or name another."):
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model: Any
        if not any(folder.glob("*.safetensors")) and (folder / ONNX).is_file():
            model = OnnxModel(folder, AutoConfig.from_pretrained(folder, trust_remote_code=False))
        else:
            model = AutoModel.from_pretrained(folder, trust_remote_code=False, use_safetensors=True, dtype=dtype)
    if tokenizer.pad_token is None:  # decoder-only models; what is padded is masked, so any token will do
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer, model.eval()


def pooled_by(
    pooling: Pooling, hidden: Float[Tensor, "texts tokens dim"], there: Shaped[Tensor, "texts tokens"]
) -> Float[Tensor, "texts dim"]:
    """One vector per text out of those of its tokens.

    Args:
        pooling: what becomes the vector.
        hidden: states of the tokens.
        there: 1 for tokens of the text, 0 for padding on either side.
    """
    if pooling == "mean":
        mask = there[..., None].float()
        return (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
    places = torch.arange(there.shape[1], device=there.device) * (there > 0)
    first = (there > 0).int().argmax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), places.amax(1) if pooling == "last" else first]


def longest_text(tokenizer: Any, model: Any) -> int:
    """Most tokens that a model can read at once."""
    # RoBERTa-like models state two positions more than they can use; their tokenizer knows better
    return min(int(getattr(model.config, "max_position_embeddings", 512)), int(tokenizer.model_max_length))


def encode_or_zero(
    encoder: Encoder, texts: Sequence[str], *, progress: bool = False
) -> Float32[np.ndarray, "texts dim"]:
    """Vectors of texts; an empty text says nothing and stays at zero.

    Raises:
        EncoderError: if the encoder does not return one finite row per text.
    """
    rows = [row for row, text in enumerate(texts) if text]
    found = np.asarray(encoder.encode([texts[row] for row in rows], progress=progress), np.float32)
    if found.ndim != 2 or len(found) != len(rows) or not np.isfinite(found).all():
        raise EncoderError(
            f"The encoder returned shape {found.shape} for {len(rows):,} texts, or values that are not finite; it must "
            "return one finite row per text."
        )
    vectors = np.zeros((len(texts), found.shape[1]), np.float32)
    vectors[rows] = found
    return vectors
