"""mecold on texts that an encoder reads which was trained inside the split."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from mecold.encode.beside import encoded, with_both
from mecold.encode.encoder import TextEncoder
from mecold.errors import EncoderError
from mecold.evaluation.systems.base import Kind, Training
from mecold.evaluation.systems.ours import FittedMecold, Mecold
from mecold.meta.choice import best_of
from mecold.meta.config import MetaConfig
from mecold.report import Recorder
from mecold.tuning.config import EncoderTraining
from mecold.tuning.ground import Shop
from mecold.tuning.tasks import TASKS
from mecold.tuning.train import WITH_LOG, train_on
from mecold.version import __version__


@dataclass(frozen=True)
class MecoldTuned:
    """The recommender, after its encoder learned from the training log and from texts of items in it.

    Args:
        steps: most steps of training.
        layers: how many of the encoder's topmost layers learn.
        name: how reports call it.
        kind: which envelope it belongs to.
        needs_text: it reads texts.
    """

    steps: int = EncoderTraining.steps
    layers: int = EncoderTraining.trained_layers
    name: str = "mecold-tuned"
    kind: Kind = "mecold"
    needs_text: bool = True

    @property
    def fingerprint(self) -> str:
        """Version and every setting."""
        return f"mecold-tuned {__version__} {self._config} {WITH_LOG} {Mecold().fingerprint}"

    @property
    def _config(self) -> EncoderTraining:
        return EncoderTraining(steps=self.steps, trained_layers=self.layers)

    def fit(self, training: Training) -> FittedMecold:
        """Train the encoder on the training log alone, choose between it, its base and both, then meta-learn.

        Raises:
            EncoderError: if the data set's texts are not read by a `TextEncoder`: there is no base to start from.
        """
        base = training.dataset.text_encoder
        if not isinstance(base, TextEncoder):
            raise EncoderError("mecold-tuned needs a TextEncoder to start from; the data set has precomputed vectors.")
        data = training.dataset
        shop = Shop(data.catalog, data.items, training.log)
        with tempfile.TemporaryDirectory() as place:
            out = Path(place) / "encoder"
            trained = train_on(
                shop, base.folder, out, {name: TASKS[name] for name in WITH_LOG}, self._config, seed=training.seed,
                device=torch.device(training.device), recorder=Recorder(),
            )  # fmt: skip
            if not trained.weight:
                return replace(Mecold().fit(training), told=trained.report.notes[-1])
            encoder = TextEncoder(
                out, pooling=base.pooling, max_length=base.max_length, normalize=base.normalize, prompt=base.prompt,
                device=training.device, cache=Path(place) / "vectors",
            )  # fmt: skip
            candidates, texts = with_both(base, encoder), data.catalog.texts
            vectors = {
                name: torch.from_numpy(one).to(training.device) for name, one in encoded(candidates, texts).items()
            }
            choice = best_of(
                vectors, training.log, data.catalog, MetaConfig(), taught=encoder.taught(texts), seed=training.seed
            )
            found = Mecold().fit(replace(training, dataset=replace(data, encoder=candidates[choice.name])))
            return replace(found, told=choice.told())
