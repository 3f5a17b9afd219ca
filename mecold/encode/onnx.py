"""Models in the ONNX format, run by ONNX Runtime: what `mecold encoder export` writes. A graph of numbers, no code."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from mecold.errors import EncoderError

ONNX = Path("onnx", "model.onnx")  # where sentence-transformers puts it
INPUTS = ("input_ids", "attention_mask")
OUTPUT = "last_hidden_state"


class OnnxModel:
    """A model of `transformers` by its looks: call it for the states of the last layer. It runs on the processor.

    Args:
        folder: model folder with `onnx/model.onnx`.
        config: the model's configuration.

    Raises:
        ImportError: without ONNX Runtime.
        EncoderError: if the file is no such graph.
    """

    def __init__(self, folder: Path, config: Any) -> None:
        self.folder, self.config = folder, config
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(f"The model in '{folder}' needs ONNX Runtime: pip install 'mecold[onnx]'") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(str(folder / ONNX), options, ["CPUExecutionProvider"])
        except Exception as error:  # it has a type of its own for each fault
            raise EncoderError(f"Cannot load '{folder / ONNX}': {error}") from error
        names = {one.name for one in self._session.get_inputs()}
        if OUTPUT not in {one.name for one in self._session.get_outputs()} or not (
            {*INPUTS} <= names <= {*INPUTS, "token_type_ids"}
        ):
            raise EncoderError(f"'{folder / ONNX}' does not go from {', '.join(INPUTS)} to {OUTPUT}.")
        self._types = "token_type_ids" in names

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy opens the file again: sessions cannot be copied."""
        return OnnxModel, (self.folder, self.config)

    def to(self, *_: Any) -> "OnnxModel":
        """Itself: there is nowhere else to go."""
        return self

    def eval(self) -> "OnnxModel":
        """Itself: it cannot learn."""
        return self

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> SimpleNamespace:
        """States of the last layer, `(texts, tokens, dim)`, where the ids are."""
        feed = {"input_ids": input_ids.cpu().numpy(), "attention_mask": attention_mask.cpu().numpy()}
        if self._types:
            feed["token_type_ids"] = torch.zeros_like(input_ids).cpu().numpy()
        found = self._session.run([OUTPUT], feed)[0]
        return SimpleNamespace(last_hidden_state=torch.from_numpy(found).to(input_ids.device))
