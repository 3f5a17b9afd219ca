"""A BERT whose topmost layers learn. The states below them are computed once and read from disk ever after.

One step on a laptop's processor then costs the layers that learn, not the whole model. A step's texts are cut into chunks of
similar length, so that hardly anything is padding, and come back in one piece: a loss sees all of them.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from tqdm import tqdm

from mecold.encode.encoder import load_model, longest_text, pooled_by
from mecold.encode.model_folder import read_settings
from mecold.errors import EncoderError

CHUNK = 2048  # tokens that go through the layers at once


class Tower(nn.Module):
    """The layers that learn, and the states of some texts below them.

    Args:
        folder: the base's model folder.
        texts: the texts that training will read.
        trained_layers: how many layers learn.
        max_length: tokens of a text that are read.
        place: folder for the states; those of an earlier run with the same texts are used again.
        device: where to compute.
        progress: show a progress bar.

    Raises:
        EncoderError: if the model is not built like BERT, or has fewer layers.
    """

    def __init__(
        self, folder: Path, texts: Sequence[str], *, trained_layers: int, max_length: int, place: Path,
        device: torch.device, progress: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        settings = read_settings(folder)
        tokenizer, model = load_model(folder)
        layers = getattr(getattr(model, "encoder", None), "layer", None)
        if layers is None or not hasattr(model, "embeddings"):
            raise EncoderError(
                f"The model in '{folder}' ({type(model).__name__}) has no `embeddings` and `encoder.layer`: only models "
                "built like BERT can be trained (BERT, RoBERTa, XLM-RoBERTa, ELECTRA). It can still encode: TextEncoder."
            )
        if trained_layers > len(layers):
            raise EncoderError(
                f"EncoderTraining.trained_layers={trained_layers}, but the model in '{folder}' has {len(layers)} layers."
            )
        self.model = model.to(device).requires_grad_(False)
        self.top = layers[len(layers) - trained_layers :].requires_grad_(True)
        self.pooling, self.device = settings.pooling, device
        prompted = [(settings.prompt + text)[: 16 * max_length] for text in texts]
        tokens = tokenizer(prompted, truncation=True, max_length=min(max_length, longest_text(tokenizer, model)))[
            "input_ids"
        ]
        self.lengths = np.array([len(one) for one in tokens], np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self._states = self._below(tokens, tokenizer, layers[: len(layers) - trained_layers], place, progress=progress)

    def __len__(self) -> int:
        return len(self.lengths)

    def forward(self, rows: Int64[np.ndarray, " some"]) -> Float[Tensor, "some dim"]:
        """Vectors of these texts, of length 1."""
        order = np.argsort(-self.lengths[rows], kind="stable")
        found = torch.cat([self._vectors(rows[some]) for some in self._chunks(rows[order], order)])
        return nn.functional.normalize(found[torch.from_numpy(np.argsort(order))], dim=1)

    @torch.no_grad()
    def vectors(self, count: int) -> Float[Tensor, "count dim"]:
        """Vectors of the first texts, without what training adds to chance (dropout)."""
        learning = self.top.training
        self.top.eval()
        found: Tensor = self(np.arange(count))
        self.top.train(learning)
        return found

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights that learn, by name."""
        return {name: value.detach().cpu().clone() for name, value in self.top.state_dict().items()}

    def put(self, weights: dict[str, Tensor]) -> None:
        """Take weights as from `weights`."""
        self.top.load_state_dict(weights)

    def _chunks(self, ordered: np.ndarray, order: np.ndarray) -> Iterator[np.ndarray]:
        start = 0
        while start < len(ordered):
            size = max(1, CHUNK // int(self.lengths[ordered[start]]))
            yield order[start : start + size]
            start += size

    def _vectors(self, rows: np.ndarray) -> Float[Tensor, "some dim"]:
        states = [torch.from_numpy(self._states[self._starts[row] : self._starts[row + 1]].copy()) for row in rows]
        hidden = nn.utils.rnn.pad_sequence(states, batch_first=True).to(self.device).float()
        there = torch.arange(hidden.shape[1], device=self.device)[None] < torch.from_numpy(self.lengths[rows]).to(
            self.device
        ).unsqueeze(1)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            hidden = _through(self.top, hidden, there).float()
        return pooled_by(self.pooling, hidden, there)

    @torch.no_grad()
    def _below(
        self, tokens: list[list[int]], tokenizer: Any, layers: Iterable[nn.Module], place: Path, *, progress: bool
    ) -> np.ndarray:
        """States below the layers that learn, a row per token, in half precision on disk."""
        shape = (int(self._starts[-1]), int(self.model.config.hidden_size))
        path, whole = place / "states.bin", place / "states.done"
        if whole.exists() and path.stat().st_size == 2 * shape[0] * shape[1]:
            return np.memmap(path, np.float16, "r", shape=shape)
        states = np.memmap(path, np.float16, "w+", shape=shape)
        order = np.argsort(-self.lengths, kind="stable")
        with tqdm(total=len(tokens), desc="reading texts", unit="text", disable=not progress) as bar:
            for some in self._chunks(order, order):
                padded = tokenizer.pad({"input_ids": [tokens[row] for row in some]}, return_tensors="pt").to(
                    self.device
                )
                hidden = _through(layers, self.model.embeddings(padded["input_ids"]), padded["attention_mask"] > 0)
                for row, own in zip(some, hidden.half().cpu().numpy(), strict=True):
                    states[self._starts[row] : self._starts[row + 1]] = own[: self.lengths[row]]
                bar.update(len(some))
        states.flush()
        whole.touch()
        return states


def _through(layers: Iterable[nn.Module], hidden: Tensor, there: Tensor) -> Tensor:
    """States after some layers; no token looks at one that is not there."""
    mask = torch.where(there, 0.0, torch.finfo(hidden.dtype).min).to(hidden.dtype)[:, None, None, :]
    for layer in layers:
        found = layer(hidden, attention_mask=mask)
        hidden = found[0] if isinstance(found, tuple) else found  # transformers 4 returned tuples
    return hidden


def tower_width(folder: Path) -> int:
    """Width of a model's vectors, as its settings say it."""
    about = json.loads((folder / "config.json").read_text("utf-8"))
    return int(about.get("hidden_size") or about.get("n_embd") or about.get("d_model") or about.get("dim") or 0)
