"""An encoder as an ONNX graph: faster on a processor, and smaller where its numbers become whole ones of eight bits."""

import contextlib
import importlib.util
import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from mecold.encode.encoder import TextEncoder, load_model
from mecold.encode.model_folder import DEFAULT_MODEL, find_model
from mecold.encode.onnx import INPUTS, ONNX, OUTPUT
from mecold.errors import EncoderError, InvalidDataError
from mecold.tuning.folder import check_out, write_folder

Precision: TypeAlias = Literal["int8", "fp32"]
NEEDED = ("onnx", "onnxruntime", "onnxscript")
LEAST_COSINE = {"int8": 0.9, "fp32": 0.999}  # of the exported model's vectors to the model's own
PROBE = ("a red pen", "a green notebook with a hard cover, two hundred pages", "1995", "wine of the north, dry")


@dataclass(frozen=True)
class ExportedEncoder:
    """What an export came to.

    Args:
        folder: the model folder.
        precision: of the numbers.
        megabytes: of the graph.
        cosine: least cosine of a vector to that of the model that was exported, over a few texts.
    """

    folder: Path
    precision: str
    megabytes: float
    cosine: float


def export_encoder(encoder: str | Path = DEFAULT_MODEL, *, out: str | Path, precision: str = "int8") -> ExportedEncoder:
    """Write an encoder as a folder with `onnx/model.onnx`, which `TextEncoder(out)` reads.

    With `int8`, weights are whole numbers of eight bits, a scale for each row; states are rounded as they come, a scale for each
    batch. So vectors differ a little from the model's own, and a model has to be fitted on the encoder that serves it.

    Args:
        encoder: hub name or folder of a model with safetensors weights.
        out: folder to write to. It must not exist, or be empty.
        precision: `"int8"`, or `"fp32"` for the same numbers in the other format.

    Raises:
        EncoderError: if the model cannot be exported, comes out wrong, or `out` is in the way.
        InvalidDataError: on another precision.
        ImportError: naming the extra that has what it takes.
    """
    if precision not in get_args(Precision):
        raise InvalidDataError(f"precision={precision!r} must be one of {', '.join(get_args(Precision))}.")
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise ImportError(f"An export needs {', '.join(missing)}: pip install 'mecold[onnx]'")
    out, folder = Path(out).absolute(), find_model(str(encoder))
    check_out(out)
    tokenizer, model = load_model(folder)
    width = int(model.config.hidden_size)
    if not isinstance(model, nn.Module):
        raise EncoderError(f"'{folder}' holds an export already; export the model that it was made of.")
    cosine = 0.0

    def check(fresh: Path) -> None:
        nonlocal cosine
        cosine = _cosine(folder, fresh)
        if not cosine >= LEAST_COSINE[precision]:  # nan is none
            raise EncoderError(
                f"The export of '{folder}' has other vectors than the model (cosine {cosine:.3f}); nothing was written."
                + (" Its numbers do not fit into eight bits: precision='fp32'." if precision == "int8" else "")
            )

    with tempfile.TemporaryDirectory() as made:
        graph = Path(made) / "model.onnx"
        try:
            with _quiet():
                _export(model, dict(tokenizer(list(PROBE), padding=True, return_tensors="pt")), graph)
                graph = _rounded(graph) if precision == "int8" else graph
        except Exception as error:  # the exporter raises whatever a model's own code does
            root: BaseException = error
            while root.__cause__ is not None:
                root = root.__cause__
            raise EncoderError(
                f"The model in '{folder}' ({type(model).__name__}) cannot be exported: {str(root) or type(root).__name__}"
            ) from error
        write_folder(folder, out, width, lambda fresh: _put(graph, model, fresh), check)
    return ExportedEncoder(out, precision, (out / ONNX).stat().st_size / 1e6, cosine)


class _States(nn.Module):
    """A model with the states of its last layer as its only answer."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """States of the last layer."""
        found: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return found


def _export(model: Any, batch: dict[str, Tensor], path: Path) -> None:
    sizes = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens")}
    torch.onnx.export(
        _States(model), tuple(batch[name] for name in INPUTS), path, input_names=list(INPUTS), output_names=[OUTPUT],
        dynamic_shapes=dict.fromkeys(INPUTS, sizes), dynamo=True, external_data=False, verbose=False,
    )  # fmt: skip


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Both libraries tell at length what they do."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _rounded(graph: Path) -> Path:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    small = graph.with_name("small.onnx")
    quantize_dynamic(
        graph, small, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gather"]
    )  # fmt: skip
    return small


def _put(graph: Path, model: Any, fresh: Path) -> None:
    (fresh / ONNX).parent.mkdir(parents=True)
    shutil.move(graph, fresh / ONNX)
    model.config.save_pretrained(fresh)


def _cosine(folder: Path, trial: Path) -> float:
    """Least cosine of the two models' vectors of some texts."""
    first, second = (
        torch.from_numpy(TextEncoder(one, device="cpu", cache=None).encode(PROBE)) for one in (folder, trial)
    )
    return float(nn.functional.cosine_similarity(first, second).min())
