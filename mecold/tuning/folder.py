"""Folders of a training: the one it works in, beside the one it writes, which is there as a whole or not at all."""

import hashlib
import json
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mecold.encode.taught import read_taught, write_taught
from mecold.errors import EncoderError
from mecold.tuning.base import Base

RECORD = "mecold_training.json"
_WEIGHTS = (".safetensors", ".bin", ".h5", ".onnx", ".msgpack", ".pt", ".index.json")


def check_out(out: Path) -> None:
    """Refuse to write where something is.

    Raises:
        EncoderError: if the folder exists and is not empty, or is a link.
    """
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise EncoderError(
            f"'{out}' exists and is not an empty folder; nothing was done. Name another folder, delete it, or, if it is an "
            "encoder already, read it: TextEncoder(folder), mecold fit --encoder folder."
        )


def workspace(out: Path, about: object) -> Path:
    """The folder of states and checkpoints beside `out`, for this training alone.

    Args:
        out: where the encoder will lie.
        about: everything that the result depends on, as JSON values.

    Raises:
        EncoderError: if another training left states or a checkpoint there.
    """
    identity = hashlib.sha256(json.dumps(about).encode()).hexdigest()
    place = out.with_name(f".{out.name}.training")
    mark = place / f"of-{identity[:24]}"
    if not mark.exists():
        if place.exists() and any(one.name.startswith(("states", "checkpoint")) for one in place.iterdir()):
            raise EncoderError(f"'{place}' holds what another training left there. Delete it, or name another `out`.")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        mark.touch()
    return place


def write_encoder(base: Base, out: Path, record: Mapping[str, Any], taught: Sequence[str]) -> None:
    """Write the model beside, then move it to where it belongs.

    Args:
        base: the model, as trained.
        out: does not exist, or is empty.
        record: what `mecold_training.json` says.
        taught: item texts that it was trained on, beside those that its base was.
    """

    def put(fresh: Path) -> None:
        base.model.save_pretrained(fresh)
        write_taught(fresh, taught, read_taught(base.folder))
        (fresh / RECORD).write_text(json.dumps(record, indent=1), "utf-8")

    write_folder(base.folder, out, base.width, put)


def write_folder(
    like: Path, out: Path, width: int, put: Callable[[Path], None], check: Callable[[Path], None] | None = None
) -> None:
    """Write a model folder beside, then move it to where it belongs.

    Args:
        like: the folder whose tokenizer, prompts and pooling it shares.
        out: does not exist, or is empty.
        width: of the vectors.
        put: writes configuration and weights into a folder, and whatever else is not as in `like`.
        check: looks at the whole folder before it is moved; what it raises leaves nothing behind.
    """
    for stale in out.parent.glob(f".{out.name}.new-*"):
        shutil.rmtree(stale, ignore_errors=True)
    fresh = out.with_name(f".{out.name}.new-{uuid.uuid4().hex[:8]}")
    try:
        fresh.mkdir(parents=True)
        put(fresh)
        for file in like.iterdir():
            if file.is_file() and not file.name.endswith(_WEIGHTS) and not (fresh / file.name).exists():
                shutil.copyfile(file, fresh / file.name)
        _modules(like, fresh, width)
        if check is not None:
            check(fresh)
        if out.exists():
            out.rmdir()  # empty, as was checked
        fresh.rename(out)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def clear(place: Path) -> None:
    """Take the workspace away, under another name first: half of one would be taken for a whole one."""
    gone = place.with_name(f"{place.name}.gone-{uuid.uuid4().hex[:8]}")
    place.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _modules(like: Path, fresh: Path, width: int) -> None:
    """What sentence-transformers reads: the base's own files, or those of a plain model."""
    if (fresh / "modules.json").exists():
        for module in json.loads((fresh / "modules.json").read_text("utf-8")):
            inside = (like / module["path"]).resolve()
            if module["path"] and inside.is_dir() and like.resolve() in inside.parents:
                shutil.copytree(inside, fresh / module["path"], dirs_exist_ok=True)
        return
    parts = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (path, kind) in enumerate(parts.items())
    ]
    (fresh / "modules.json").write_text(json.dumps(modules), "utf-8")
    for path in ("1_Pooling", "2_Normalize"):
        (fresh / path).mkdir()
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
    (fresh / "1_Pooling" / "config.json").write_text(json.dumps(pooling), "utf-8")
