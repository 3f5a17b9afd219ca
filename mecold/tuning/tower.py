"""A BERT whose topmost layers learn. The states below them are computed once and read from disk ever after.

One step on a laptop's processor then costs the layers that learn, not the whole model. A step's texts are cut into chunks of
similar length, so that hardly anything is padding, and come back in one piece: a loss sees all of them.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm

from mecold.encode.encoder import pooled_by
from mecold.tuning.base import Base, through

CHUNK = 2048  # tokens that go through the layers at once


def _halves(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware: about twice as fast on a processor, more on a GPU."""
    if device.type == "cpu":
        return (
            bool(torch.backends.cpu.get_cpu_capability().startswith("AVX512")) and torch.cpu._is_avx512_bf16_supported()
        )
    return device.type == "cuda"


class Tower(nn.Module):
    """The layers that learn, and the states of some texts below them.

    Args:
        base: the model to start from; it is trained in place.
        texts: the texts that training will read.
        trained_layers: how many layers learn; all of a model that has fewer.
        max_length: tokens of a text that are read.
        place: folder for the states, two bytes a number; those of an earlier run with the same texts are used again.
        device: where to compute.
        progress: show a progress bar.
    """

    def __init__(
        self, base: Base, texts: Sequence[str], *, trained_layers: int, max_length: int, place: Path,
        device: torch.device, progress: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model = base.model.to(device).requires_grad_(False)
        below = max(0, len(base.layers) - trained_layers)
        self.top = base.layers[below:].requires_grad_(True)
        self.settings, self.device = base.settings, device
        tokens = base.tokens(texts, max_length)
        self.lengths = np.array([len(one) for one in tokens], np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self.lengths)])
        self._states = self._below(base, tokens, base.layers[:below], place, progress=progress)

    def forward(self, rows: Int64[np.ndarray, " some"]) -> Float[Tensor, "some dim"]:
        """Vectors of these texts, of length 1."""
        return nn.functional.normalize(self._pooled(rows), dim=1)

    @torch.no_grad()
    def vectors(self, rows: Int64[np.ndarray, " some"]) -> Float[Tensor, "some dim"]:
        """Vectors of some texts as the encoder gives them: without what training adds to chance (dropout)."""
        learning = self.top.training
        self.top.eval()
        found = self._pooled(rows)
        self.top.train(learning)
        return nn.functional.normalize(found, dim=1) if self.settings.normalize else found

    def weights(self) -> dict[str, Tensor]:
        """A copy of the weights that learn, by name."""
        return {name: value.detach().cpu().clone() for name, value in self.top.state_dict().items()}

    def put(self, weights: dict[str, Tensor]) -> None:
        """Take weights as from `weights`."""
        self.top.load_state_dict(weights)

    def _pooled(self, rows: np.ndarray) -> Float[Tensor, "some dim"]:
        order = np.argsort(-self.lengths[rows], kind="stable")
        found = torch.cat([self._chunk(rows[some]) for some in self._chunks(rows[order], order)])
        return found[torch.from_numpy(np.argsort(order))]

    def _chunks(self, ordered: np.ndarray, order: np.ndarray) -> Iterator[np.ndarray]:
        start = 0
        while start < len(ordered):
            size = max(1, CHUNK // int(self.lengths[ordered[start]]))
            yield order[start : start + size]
            start += size

    def _chunk(self, rows: np.ndarray) -> Float[Tensor, "some dim"]:
        states = [torch.from_numpy(self._states[self._starts[row] : self._starts[row + 1]].copy()) for row in rows]
        hidden = nn.utils.rnn.pad_sequence(states, batch_first=True).to(self.device).float()
        sizes = torch.from_numpy(self.lengths[rows]).to(self.device)
        there = torch.arange(hidden.shape[1], device=self.device)[None] < sizes[:, None]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=_halves(self.device)):
            if torch.is_grad_enabled() and self.device.type == "cpu":  # a chunk's inner states at a time, not a step's
                hidden = checkpoint(through, self.top, hidden, there, use_reentrant=False)
            else:
                hidden = through(self.top, hidden, there)
        return pooled_by(self.settings.pooling, hidden.float(), there)

    @torch.no_grad()
    def _below(
        self, base: Base, tokens: list[list[int]], layers: Iterable[nn.Module], place: Path, *, progress: bool
    ) -> np.ndarray:
        """States below the layers that learn, a row per token, in half precision on disk."""
        shape = (int(self._starts[-1]), base.width)
        path, whole, size = place / "states.bin", place / "states.done", 2 * shape[0] * shape[1]
        if whole.exists() and path.exists() and path.stat().st_size == size:
            return np.memmap(path, np.float16, "r", shape=shape)
        with path.open("wb") as file:  # a full disk is an error here, not a crash while it is written
            os.posix_fallocate(file.fileno(), 0, size) if hasattr(os, "posix_fallocate") else file.truncate(size)
        states = np.memmap(path, np.float16, "r+", shape=shape)
        order = np.argsort(-self.lengths, kind="stable")
        with tqdm(total=len(tokens), desc="reading texts", unit="text", disable=not progress) as bar:
            for some in self._chunks(order, order):
                ids = {"input_ids": [tokens[row] for row in some]}
                padded = base.tokenizer.pad(ids, return_tensors="pt", padding_side="right").to(self.device)
                hidden = through(layers, base.embedded(padded["input_ids"]), padded["attention_mask"] > 0)
                for row, own in zip(some, hidden.half().cpu().numpy(), strict=True):
                    states[self._starts[row] : self._starts[row + 1]] = own[: self.lengths[row]]
                bar.update(len(some))
        states.flush()
        whole.touch()
        return states
