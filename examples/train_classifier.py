"""Train from a data set: a small network learns which of the bundled pictures a crop comes from.

Usage:
    python examples/train_classifier.py

The pictures are cut into crops, one folder per picture; these are compressed into a data set for training and one for
testing; a torch DataLoader streams them. Some seconds on a CPU.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from compress_folder import PICTURES, compress
from PIL import Image
from torch import nn

from pilc_stream.readers.torch import StreamingImages
from pilc_stream.readers.torch_loader import ImageLoader

CROP = 32
BATCH = 32


def cut(folder: Path) -> list[str]:
    """Write crops as `train/PICTURE/3-4.png`, every fourth as `test/...`; return the names of the pictures."""
    names = []
    for path in sorted(PICTURES.glob("*.png")):
        names.append(path.stem)
        with Image.open(path) as picture:
            for y in range(picture.height // CROP):
                for x in range(picture.width // CROP):
                    part = folder / ("test" if (x + 2 * y) % 4 == 0 else "train") / path.stem
                    part.mkdir(parents=True, exist_ok=True)
                    crop = picture.crop((x * CROP, y * CROP, (x + 1) * CROP, (y + 1) * CROP))
                    crop.save(part / f"{y}-{x}.png")
    return names


def to_input(image: torch.Tensor) -> torch.Tensor:
    """A uint8 image (C, H, W), grey or RGB, to floats (3, H, W)."""
    return image.expand(3, -1, -1).float() / 255 - 0.5


def labels(keys: list[str], names: list[str]) -> torch.Tensor:
    """The number of each key's folder."""
    return torch.tensor([names.index(key.split("/")[0]) for key in keys])


def main() -> None:
    parser = argparse.ArgumentParser(description="Learn which picture a crop comes from.")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--profile", default="fast")
    parser.add_argument("--loader-workers", type=int, default=0, help="processes that read and decode")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = cut(folder)
        for part in ("train", "test"):
            report = compress(str(folder / part), str(folder / f"{part}-dataset"), arguments.profile)
            print(f"{part}: {report.totals.images} crops, {report.totals.payload_bytes:,} bytes of payloads")

        train = StreamingImages(str(folder / "train-dataset"), batch_size=BATCH, transform=to_input)
        test = StreamingImages(str(folder / "test-dataset"), batch_size=BATCH, transform=to_input, shuffle=False)
        model = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, len(names)),
        )  # fmt: skip
        optimiser = torch.optim.Adam(model.parameters(), lr=0.005)
        loader = ImageLoader(train, arguments.loader_workers)
        for epoch in range(arguments.epochs):
            train.set_epoch(epoch)
            losses = []
            for batch in loader:
                loss = nn.functional.cross_entropy(model(batch["image"]), labels(batch["key"], names))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                losses.append(loss.item())
            print(f"epoch {epoch}: loss {sum(losses) / len(losses):.3f}")

        with torch.no_grad():
            right = sum(
                int((model(batch["image"]).argmax(1) == labels(batch["key"], names)).sum())
                for batch in ImageLoader(test)
            )
        print(f"accuracy {right / len(test.dataset):.2f} on crops that were not trained on")


if __name__ == "__main__":
    main()
