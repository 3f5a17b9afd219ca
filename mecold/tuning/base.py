"""The model that training starts from, loaded and looked at before anything is written."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mecold.encode.encoder import load_model, longest_text
from mecold.encode.model_folder import ModelSettings, read_settings
from mecold.encode.onnx import OnnxModel
from mecold.errors import EncoderError

_PROBE = ["a red pen", "a green notebook with a hard cover, two hundred pages"]
_CLOSE = 1e-3  # how far the layers one by one may be from the model as a whole


@dataclass(frozen=True)
class Base:
    """A BERT-like model and what its folder says of it.

    Args:
        folder: where it lies.
        tokenizer: cuts texts into tokens.
        model: on the CPU, in float32.
        settings: pooling, prompt, length.
    """

    folder: Path
    tokenizer: Any
    model: Any
    settings: ModelSettings

    @classmethod
    @torch.no_grad()
    def load(cls, folder: Path) -> "Base":
        """Load and check.

        Raises:
            EncoderError: if the model is not built like BERT.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # a folder without a pooler gets a random one, which nobody reads
            found = cls(folder, *load_model(folder), read_settings(folder))
        if isinstance(found.model, OnnxModel):
            raise EncoderError(
                f"'{folder}' holds an ONNX graph, which cannot learn; train the model that it was made of."
            )
        if not found._like_bert():
            raise EncoderError(
                f"The model in '{folder}' ({type(found.model).__name__}) is not built like BERT: it is more than embeddings and "
                "layers on top of one another. BERT, RoBERTa, XLM-RoBERTa, ELECTRA and their kin can learn; this one can still "
                "encode: TextEncoder."
            )
        for name, module in found.model.named_modules():
            if name.endswith(
                "attention.self.dropout"
            ):  # with it, attention takes a path that keeps every pair of tokens
                module.p = 0.0
            elif hasattr(module, "dropout_prob"):  # the same in older versions of transformers
                module.dropout_prob = 0.0
        return found

    @property
    def layers(self) -> Any:
        """The layers, from below."""
        return self.model.encoder.layer

    @property
    def width(self) -> int:
        """Of the vectors."""
        return int(self.model.config.hidden_size)

    def tokens(self, texts: Iterable[str], max_length: int) -> list[list[int]]:
        """Tokens of texts, under the prompt, as the encoder will cut them or shorter.

        Raises:
            EncoderError: if a text has none.
        """
        longest = min(max_length, self.settings.max_length or max_length, longest_text(self.tokenizer, self.model))
        prompted = [(self.settings.prompt + text)[: 16 * longest] for text in texts]
        found: list[list[int]] = self.tokenizer(prompted, truncation=True, max_length=longest)["input_ids"]
        if not all(found):
            raise EncoderError(
                f"The tokenizer in '{self.folder}' makes no token of an empty text; it must mark both ends of a text to learn."
            )
        return found

    def embedded(self, ids: Tensor) -> Float[Tensor, "texts tokens dim"]:
        """States under the first layer."""
        found: Tensor = self.model.embeddings(ids)
        project = getattr(self.model, "embeddings_project", None)  # ELECTRA's words are narrower than its layers
        return found if project is None else project(found)

    def _like_bert(self) -> bool:
        """Whether embeddings and layers one by one give what the model gives."""
        if not (hasattr(self.model, "embeddings") and hasattr(getattr(self.model, "encoder", None), "layer")):
            return False
        batch = self.tokenizer(_PROBE, padding=True, return_tensors="pt")
        there = batch["attention_mask"] > 0
        try:
            ours = through(self.layers, self.embedded(batch["input_ids"]), there)
        except (TypeError, RuntimeError, ValueError):  # layers that want more than states and a mask
            return False
        whole = self.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        return bool((ours - whole)[there].abs().max() < _CLOSE)


def through(
    layers: Iterable[nn.Module], hidden: Float[Tensor, "texts tokens dim"], there: Bool[Tensor, "texts tokens"]
) -> Float[Tensor, "texts tokens dim"]:
    """States after some layers; no token looks at one that is not there."""
    mask = torch.where(there, 0.0, torch.finfo(hidden.dtype).min).to(hidden.dtype)[:, None, None, :]
    for layer in layers:
        found = layer(hidden, attention_mask=mask)
        hidden = found[0] if isinstance(found, tuple) else found  # transformers 4 returned tuples
    return hidden
