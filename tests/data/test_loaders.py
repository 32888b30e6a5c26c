"""One law for both loaders: what a global batch holds depends on (seed, epoch, number) alone."""

from __future__ import annotations

import hashlib
import resource
import shutil
import sys
import threading
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from pretrain.config import AugmentationConfig, DataConfig
from pretrain.data.beton.format import read_table
from pretrain.data.catalog import beton_path
from pretrain.data.kernels import jpeg as turbojpeg
from pretrain.data.loader import Batch, Loader, build_loader, threads_of_rank
from pretrain.data.renderer import Renderer
from tests.data.conftest import JPEG_IMAGES, RAW_IMAGES

LoaderName = Literal["auto", "ffcv", "beton"]
LOADERS: tuple[LoaderName, ...] = ("ffcv", "beton")
GLOBAL_BATCH = 12


def make(
    directory: Path, loader: LoaderName, *, rank: int = 0, world_size: int = 1, workers: Any = 1, seed: int = 1,
    images: int | None = None, batch: int = GLOBAL_BATCH, side: int = 24, group: Any = None,
    decoded_in_memory: bool = False,
) -> Loader:  # fmt: skip
    dataset = "synthetic" if directory.name.startswith("raw") else "imagefolder"
    data = DataConfig(
        dataset=dataset, directory=directory, loader=loader, workers=workers, images=images,
        decoded_in_memory=decoded_in_memory,
    )  # fmt: skip
    augmentation = AugmentationConfig(crop_size_px=side, blur_kernel_fraction=0.2, solarize_probability=0.2)
    return build_loader(
        data, augmentation, seed=seed, global_batch_size=batch, rank=rank, world_size=world_size, group=group
    )


def digests(directory: Path, loader: LoaderName, epoch: int = 0, first_batch: int = 0, world_size: int = 1, **kw: Any):
    """sha256 of every global batch: views, labels and indices of the ranks side by side."""
    loaders = [make(directory, loader, rank=rank, world_size=world_size, **kw) for rank in range(world_size)]
    result = []
    for shares in zip(*(each.epoch(epoch, first_batch=first_batch) for each in loaders), strict=True):
        digest = hashlib.sha256()
        for part in zip(*shares, strict=True):
            digest.update(torch.cat(part).numpy().tobytes())
        result.append(digest.hexdigest())
    for each in loaders:
        each.close()
    return result


@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_global_batches_do_not_know_who_makes_them(kind: str, request: pytest.FixtureRequest) -> None:
    directory = request.getfixturevalue(f"{kind}_directory")
    wanted = digests(directory, "beton", epoch=3)
    assert len(wanted) == (RAW_IMAGES if kind == "raw" else JPEG_IMAGES) // GLOBAL_BATCH
    assert len(set(wanted)) == len(wanted)
    for loader in LOADERS:
        for world_size, workers in ((1, 1), (2, 2), (4, 1), (1, 4)):
            got = digests(directory, loader, 3, world_size=world_size, workers=workers)
            assert got == wanted, (loader, world_size, workers)
        assert digests(directory, loader, 3, first_batch=1, world_size=3) == wanted[1:]


def test_seeds_and_epochs_differ(raw_directory: Path) -> None:
    seen = [digests(raw_directory, "beton", epoch, seed=seed)[0] for seed in (1, 2) for epoch in (0, 1)]
    assert len(set(seen)) == 4


@pytest.mark.parametrize("loader", LOADERS)
def test_a_batch(raw_directory: Path, loader: LoaderName) -> None:
    """Shapes, types, right labels, views that differ, and storage that later batches leave alone."""
    it = make(raw_directory, loader)
    assert (it.images, it.batches_per_epoch, it.batch_size_per_rank) == (RAW_IMAGES, RAW_IMAGES // GLOBAL_BATCH, 12)
    batches = [(batch, Batch(*(part.clone() for part in batch))) for batch in it.epoch(0)]
    for batch, copy in batches:
        assert batch.views.shape == (12, 2, 3, 24, 24)
        assert (batch.views.dtype, batch.labels.dtype, batch.indices.dtype) == (torch.uint8, torch.int64, torch.int64)
        torch.testing.assert_close(batch.labels, batch.indices % 10)
        assert (batch.views[:, 0] != batch.views[:, 1]).flatten(1).any(1).all()
        assert all(torch.equal(kept, then) for kept, then in zip(batch, copy, strict=True))
    assert len(torch.cat([batch.indices for batch, _ in batches]).unique()) == RAW_IMAGES // 12 * 12
    it.close()


@pytest.mark.parametrize("loader", LOADERS)
def test_a_subset_is_used_alone(raw_directory: Path, loader: LoaderName) -> None:
    it = make(raw_directory, loader, images=30)
    seen = {int(index) for epoch in range(3) for batch in it.epoch(epoch) for index in batch.indices}
    it.close()
    assert it.images == 30
    assert 24 <= len(seen) <= 30


@pytest.mark.parametrize("loader", LOADERS)
def test_leaving_early_ends_the_threads(raw_directory: Path, loader: LoaderName) -> None:
    before = threading.active_count()
    it = make(raw_directory, loader, workers=2)
    for _ in range(200):
        for _batch in it.epoch(0):
            break
    open_epoch = it.epoch(1)
    next(open_epoch)
    assert threading.active_count() > before
    del open_epoch
    it.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_memory_stays_flat(kind: str, loader: LoaderName, request: pytest.FixtureRequest) -> None:
    """Over 20 epochs after the first two; one leaked batch per epoch would be 40 MB."""
    it = make(request.getfixturevalue(f"{kind}_directory"), loader, batch=24, side=120)
    batch_bytes = 24 * 2 * 3 * 120 * 120

    def resident() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    for epoch in range(22):
        for _batch in it.epoch(epoch):
            pass
        if epoch == 1:
            before = resident()
    it.close()
    assert resident() - before < 5 * batch_bytes


@pytest.mark.parametrize("loader", LOADERS)
def test_torchs_thread_count_is_left_alone(raw_directory: Path, loader: LoaderName) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        it = make(raw_directory, loader)
        next(it.epoch(0))
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("damage", ["header", "pixels"])
@pytest.mark.parametrize("loader", LOADERS)
def test_a_damaged_image_is_named(jpeg_directory: Path, tmp_path: Path, loader: LoaderName, damage: str) -> None:
    directory = tmp_path / "jpeg"
    shutil.copytree(jpeg_directory, directory)
    path, sample = beton_path(directory, "train"), 7
    table = read_table(path)
    first, size = int(table.offset_N[sample]), int(table.size_N[sample])
    content = bytearray(path.read_bytes())
    low, high = (first, first + 4) if damage == "header" else (first + size // 2, first + size)
    content[low:high] = bytes(high - low)
    path.write_bytes(bytes(content))
    threads = threading.active_count()
    it = make(directory, loader, batch=JPEG_IMAGES)
    with pytest.raises(ValueError, match=rf"train\.beton: sample {sample} is not a JPEG"):
        list(it.epoch(0))
    it.close()
    assert threading.active_count() == threads


@pytest.mark.parametrize("loader", LOADERS)
def test_images_kept_in_memory_are_the_same(
    jpeg_directory: Path, loader: LoaderName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the second epoch on nothing is decoded; with threads, and without libturbojpeg too."""
    wanted = [digests(jpeg_directory, "beton", epoch) for epoch in range(3)]
    for turbo in (True, False):
        monkeypatch.setattr(turbojpeg, "load", (lambda: True) if turbo else (lambda: False))
        it = make(jpeg_directory, loader, workers=2, decoded_in_memory=True)
        for epoch in range(3):
            got = [hashlib.sha256(b"".join(part.numpy().tobytes() for part in batch)) for batch in it.epoch(epoch)]
            assert [digest.hexdigest() for digest in got] == wanted[epoch]
        it.close()
    decoded: list[int] = []
    real = Renderer._decode
    monkeypatch.setattr(
        Renderer, "_decode", lambda self, index, *rest: (decoded.extend(index), real(self, index, *rest))[1]
    )
    it = make(jpeg_directory, loader, decoded_in_memory=True, batch=JPEG_IMAGES)
    for epoch in range(3):
        list(it.epoch(epoch))
    it.close()
    assert sorted(decoded) == list(range(JPEG_IMAGES))


def test_images_that_do_not_fit_memory_are_refused(jpeg_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copies of all ranks of the node together; what a subset does not use is not counted."""
    table = read_table(beton_path(jpeg_directory, "train"))
    whole = int((3 * table.height_N * table.width_N).sum())
    monkeypatch.setattr("pretrain.data.buffers.available_bytes", lambda: whole + 100)
    make(jpeg_directory, "beton", decoded_in_memory=True).close()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"each of the 2 ranks of this node keeps its own; .* GB of memory are avail"):
        make(jpeg_directory, "beton", decoded_in_memory=True)
    make(jpeg_directory, "beton", decoded_in_memory=True, images=6, batch=6).close()


def test_without_libturbojpeg_the_pixels_are_the_same(jpeg_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert turbojpeg.load(), "libturbojpeg is missing on this machine; ffcv needs it too"
    wanted = digests(jpeg_directory, "beton")
    monkeypatch.setattr(turbojpeg, "load", lambda: False)
    assert digests(jpeg_directory, "beton") == wanted


def test_a_missing_ffcv_is_explained(raw_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pretrain.data.ffcv_loader", None)
    with pytest.raises(ImportError, match=r"Set data\.loader=beton.*libturbojpeg0-dev libopencv-dev.*conda-forge"):
        make(raw_directory, "ffcv")


def test_ffcv_is_taken_where_it_is_there(
    raw_directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By default; else our own reader, with the same batches. One line of the first rank says which, and why."""
    wanted = digests(raw_directory, "beton", world_size=2)
    capsys.readouterr()
    assert DataConfig().loader == "auto"
    assert digests(raw_directory, "auto", world_size=2, workers="auto") == wanted
    assert capsys.readouterr().out.split("\n") == ["  images are read by    ffcv, 1 threads a rank", ""]
    monkeypatch.setitem(sys.modules, "pretrain.data.ffcv_loader", None)
    assert digests(raw_directory, "auto", world_size=2) == wanted
    assert "our own reader (the same batches; ffcv cannot be imported: " in capsys.readouterr().out


def test_threads_of_a_rank_are_its_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (threads_of_rank("auto"), threads_of_rank(5)) == (1, 5)  # on a CPU the networks need the others
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(24)))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert threads_of_rank("auto") == 3


def test_missing_and_wrong_data_are_explained(raw_directory: Path, tmp_path: Path) -> None:
    data = DataConfig(dataset="cifar10", directory=tmp_path)
    with pytest.raises(FileNotFoundError, match=rf"bigbatch data write cifar10 {tmp_path}"):
        build_loader(data, AugmentationConfig(), seed=0, global_batch_size=8)
    other = data.model_copy(update={"directory": raw_directory})
    with pytest.raises(ValueError, match=r"holds synthetic, data\.dataset is cifar10"):
        build_loader(other, AugmentationConfig(), seed=0, global_batch_size=8)
    with pytest.raises(ValueError, match=r"train\.beton: global_batch_size: 512 is more than the 100 images"):
        make(raw_directory, "beton", batch=512)


def test_a_changed_file_is_noticed(raw_directory: Path, tmp_path: Path) -> None:
    directory = tmp_path / "raw"
    shutil.copytree(raw_directory, directory)
    with beton_path(directory, "train").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match=r"\d+ were written; write it again"):
        make(directory, "beton")
