"""Train with PyTorch Lightning from a streaming loader whose place is part of Lightning's checkpoints.

Usage:
    python examples/lightning_training.py

Training stops in the middle of an epoch, and a new trainer goes on from the checkpoint with the images not yet seen.
"""

from __future__ import annotations

import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from compress_folder import PICTURES, compress
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from pilc_stream.readers.torch import StreamingImages
from pilc_stream.readers.torch_loader import CropCollate, ImageLoader

SEEN: Counter[str] = Counter()


class Brightness(lightning.LightningModule):
    """Learns the mean brightness of a picture: the smallest model that trains."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 8, stride=8)

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        """Lightning calls this for every batch."""
        SEEN.update(batch["key"])
        pictures = batch["image"].float() / 255
        return nn.functional.mse_loss(self.layer(pictures).mean((1, 2, 3)), pictures.mean((1, 2, 3)))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Lightning calls this once."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader_of(url: str, workers: int) -> ImageLoader:
    return ImageLoader(StreamingImages(url, batch_size=2), workers, collate=CropCollate(64, 64))


def trainer_of(folder: Path, **options: Any) -> lightning.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    checkpoints = ModelCheckpoint(folder, "{step}", every_n_train_steps=2, save_top_k=-1)
    return lightning.Trainer(max_epochs=1, callbacks=[checkpoints], **quiet, **options)


def main() -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        compress(str(PICTURES), str(folder / "dataset"))
        first = trainer_of(folder, max_steps=2)
        first.fit(Brightness(), loader_of(str(folder / "dataset"), workers=0))
        print(f"stopped after {first.global_step} steps and {len(SEEN)} pictures")

        second = trainer_of(folder)
        second.fit(Brightness(), loader_of(str(folder / "dataset"), workers=1), ckpt_path=folder / "step=2.ckpt")
        print(f"went on to step {second.global_step}: {len(SEEN)} pictures, each once: {set(SEEN.values()) == {1}}")


if __name__ == "__main__":
    main()
