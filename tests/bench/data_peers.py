"""The loaders against their peers: ``python -m tests.bench.data_peers [256] [500] [32] [--rounds 3] [--images 512]``.

256, 500: photographs of 256 x 256 and 500 x 375 px, as JPEG of quality 90, to two views of 224 px; 32: raw images of
32 px to two views of 32. All with SimCLR's full augmentation on two threads or worker processes, except FFCV 1.0.2 (its
own pipelines twice, crop and flip only) and decoding alone. Everybody takes turns; medians of samples per second, and
processor time per sample as the second witness. The images are made up and the same on every machine.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import v2

from pretrain.config import AugmentationConfig, DataConfig
from pretrain.data.beton.format import read_table
from pretrain.data.catalog import beton_path
from pretrain.data.loader import build_loader
from pretrain.data.renderer import Renderer
from pretrain.data.sources.images import Images
from pretrain.data.write_beton import Storage, write_split
from tests.bench.photographs import jpeg, photograph
from tests.bench.timing import rates, report

THREADS, BATCH = 2, 256
SIZES = {"256": (256, 256, 224), "500": (375, 500, 224), "32": (32, 32, 32)}
OURS = ("ffcv loader", "beton loader")
TORCHVISION, PIL_BLUR, FFCV, DECODE = (
    "torchvision v2",
    "torchvision v2, PIL's blur",
    "FFCV, crop and flip",
    "decode only",
)
# (peer, at least so many times its rate), for each of our loaders.
GATES = {"256": ((TORCHVISION, 14), (PIL_BLUR, 7), (FFCV, 1.4), (DECODE, 0.33)), "500": ((DECODE, 0.5),),
         "32": ((TORCHVISION, 40),)}  # fmt: skip


def make_images(kind: str, images: int, folder: Path) -> list[bytes]:
    """The images as files in memory (JPEG, or raw at 32 px), written to folder/train.beton too."""
    height, width, _ = SIZES[kind]
    few = [photograph(height, width, seed) for seed in range(min(images, 128))]
    storage = Storage("raw") if kind == "32" else Storage("jpg", None, 90)
    source = Images(np.zeros(images, np.int64), ("any",), lambda index: few[index % len(few)])
    write_split(source, folder, dataset="imagefolder", split="train", storage=storage, workers=THREADS)
    files = [pixels.tobytes() if kind == "32" else jpeg(pixels) for pixels in few]
    return [files[index % len(files)] for index in range(images)]


def our_loader(name: str, folder: Path, size: int) -> Callable[[], int]:
    values = {"dataset": "imagefolder", "directory": folder, "loader": name, "workers": THREADS}
    loader = build_loader(
        DataConfig.model_validate(values), AugmentationConfig(crop_size_px=size), seed=0, global_batch_size=BATCH
    )
    epochs = iter(range(10**9))
    return lambda: sum(len(batch.indices) for batch in loader.epoch(next(epochs)))


class PilBlur(torch.nn.Module):
    """Gaussian blur of a PIL image by Pillow, sigma U[0.1, 2]: three box filters, and so faster than a Gaussian."""

    def forward(self, image: Image.Image) -> Image.Image:
        return image.filter(ImageFilter.GaussianBlur(0.1 + 1.9 * float(torch.rand(()))))


class TwoViews(torch.utils.data.Dataset[torch.Tensor]):
    """torchvision v2 as SimCLR's reimplementations use it: PIL images, one transform called twice."""

    def __init__(self, files: list[bytes], kind: str, blur: torch.nn.Module) -> None:
        self.files, (self.height, self.width, size) = files, SIZES[kind]
        self.raw = kind == "32"
        self.transform = v2.Compose([
            v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], 0.8), v2.RandomGrayscale(0.2),
            v2.RandomApply([blur], 0.5), v2.PILToTensor(),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        import io

        if self.raw:
            image = Image.frombytes("RGB", (self.width, self.height), self.files[index])
        else:
            image = Image.open(io.BytesIO(self.files[index])).convert("RGB")
        return torch.stack([self.transform(image), self.transform(image)])


def torchvision_loader(files: list[bytes], kind: str, blur: torch.nn.Module) -> Callable[[], int]:
    loader = torch.utils.data.DataLoader(
        TwoViews(files, kind, blur), BATCH, shuffle=True, num_workers=THREADS, persistent_workers=True
    )
    return lambda: sum(len(batch) for batch in loader)


def ffcv_loader(folder: Path, size: int) -> Callable[[], int]:
    """FFCV's own decoder, random crop and flip, once per view: what of SimCLR it does by itself."""
    from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.pipeline import PipelineSpec
    from ffcv.transforms import RandomHorizontalFlip, ToTensor, ToTorchImage

    def view() -> Any:
        crop = RandomResizedCropRGBImageDecoder((size, size))
        return PipelineSpec("image", decoder=crop, transforms=[RandomHorizontalFlip(), ToTensor(), ToTorchImage()])

    pipelines = {"first": view(), "second": view(), "image": None, "label": None}
    loader = Loader(
        str(beton_path(folder, "train")), batch_size=BATCH, num_workers=THREADS, os_cache=True, drop_last=True,
        order=OrderOption.RANDOM, pipelines=pipelines,
    )  # fmt: skip
    return lambda: sum(len(batch[0]) for batch in loader)


def decode_only(folder: Path) -> Callable[[], int]:
    """What both views of a sample need at least: reading and decoding it once."""
    renderer = Renderer(read_table(beton_path(folder, "train")), 1)
    chunks = np.array_split(np.arange(len(renderer.table)), max(1, len(renderer.table) // 8))
    pool = ThreadPoolExecutor(THREADS)

    def run() -> int:
        list(pool.map(renderer.decoded, chunks))
        return len(renderer.table)

    return run


def compare(kind: str, images: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, size = Path(name), SIZES[kind][2]
        files = make_images(kind, images, folder)
        few = files[: images if kind == "32" else max(BATCH * THREADS, images // 4)]  # they are slow
        own_blur = v2.GaussianBlur(max(3, size // 10 | 1), (0.1, 2.0))
        runs = {
            OURS[0]: our_loader("ffcv", folder, size),
            OURS[1]: our_loader("beton", folder, size),
            TORCHVISION: torchvision_loader(few, kind, own_blur),
            PIL_BLUR: torchvision_loader(few, kind, PilBlur()),
            FFCV: ffcv_loader(folder, size),
        }
        if kind != "32":
            runs[DECODE] = decode_only(folder)
        measured = rates(runs, rounds)
    print(f"\n{kind} px -> 2 x {size}")
    for who, rate in measured.items():
        print(f"  {who:28} {rate.per_second:9.0f} samples/s {rate.cpu_us:9.1f} us of processor per sample")
    for ours in OURS:
        for peer, gate in GATES[kind]:
            a, b = measured[ours], measured[peer]
            report(f"  {ours} against {peer}", a.per_second / b.per_second, "x", gate, at_least=True)
            print(f"{'':10}by processor time {b.cpu_us / a.cpu_us:.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kinds", nargs="*", choices=[*SIZES, []], default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=512, help="photographs per epoch; 16 times as many of 32 px")
    given = parser.parse_args()
    for kind in given.kinds:
        compare(kind, given.images * (16 if kind == "32" else 1), given.rounds)


if __name__ == "__main__":
    main()
