"""A fitted recommender as bytes, for hosts that pickle their models: the model folder, zipped. The same model, the same bytes."""

import io
import tempfile
import zipfile
from pathlib import Path

from mecold import Encoder, Recommender


def pack(recommender: Recommender | None) -> bytes:
    """The model folder as one zip; empty where nothing is fitted."""
    if recommender is None:
        return b""
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(buffer, "w") as packed:
        recommender.save(Path(folder) / "model")
        for path in sorted((Path(folder) / "model").rglob("*")):
            packed.writestr(zipfile.ZipInfo(str(path.relative_to(Path(folder) / "model"))), path.read_bytes())
    return buffer.getvalue()


def unpack(packed: bytes, encoder: Encoder | None = None) -> Recommender | None:
    """What `pack` packed; None where nothing was fitted."""
    if not packed:
        return None
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(io.BytesIO(packed)) as zipped:
        zipped.extractall(folder)
        return Recommender.load(folder, encoder=encoder)
