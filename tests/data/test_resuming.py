"""Writing that ends early, for whatever reason, goes on where it was; what was written can be verified."""

from __future__ import annotations

import errno
import io
import shutil
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from pretrain.data import write_beton
from pretrain.data.beton import writer
from pretrain.data.beton.encode import encoded
from pretrain.data.beton.format import read_table
from pretrain.data.catalog import beton_path, manifest_path, read_manifest
from pretrain.data.sources.images import Images
from pretrain.data.sources.registry import open_images
from pretrain.data.sources.synthetic import synthetic
from pretrain.data.verify import verify_split
from pretrain.data.write_beton import Storage, main, write_split
from tests.data.conftest import RAW_IMAGES, photographs

ROOT = Path(__file__).parents[2]
# Writes 60 synthetic images with a checkpoint every 8, doing {event} when it comes to image 45.
_SCRIPT = """
import os, resource, signal, sys
from dataclasses import replace
from pathlib import Path
from pretrain.data import write_beton
from pretrain.data.beton import writer
from pretrain.data.beton.encode import encoded
from pretrain.data.sources.synthetic import synthetic
writer._CHECKPOINT_IMAGES = 8
source = synthetic("train", 60)
def pixels(index):
    if index == 45:
        {event}
    return source.pixels(index)
write_beton.write_split(replace(source, pixels=pixels), Path(sys.argv[1]), dataset="synthetic", split="train",
                        storage=write_beton.Storage("raw"))
"""


def write(directory: Path, source: Images | None = None, workers: int = 1) -> list[int]:
    """Write 60 synthetic images (or ``source``) and tell which were asked for."""
    source, asked = source or synthetic("train", 60), []

    def pixels(index: int) -> Any:
        asked.append(index)
        return source.pixels(index)

    counted = replace(source, pixels=pixels)
    write_split(
        counted, directory, dataset="synthetic", split="train", storage=Storage("raw"), workers=workers
    )  # fmt: skip
    return asked


def in_a_process(directory: Path, event: str) -> subprocess.CompletedProcess[str]:
    directory.mkdir(exist_ok=True)
    code = _SCRIPT.format(event=event)
    return subprocess.run([sys.executable, "-c", code, str(directory)], cwd=ROOT, capture_output=True, text=True)


class Written(NamedTuple):
    killed: Path  # a writer of 40 of 60 images
    whole: Path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    killed, whole = tmp_path_factory.mktemp("killed"), tmp_path_factory.mktemp("whole")
    write(whole)
    assert in_a_process(killed, "os.kill(os.getpid(), signal.SIGKILL)").returncode == -9
    assert sorted(path.name for path in killed.iterdir()) == [".train.beton.journal", ".train.beton.part"]
    return Written(killed, whole)


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_writer_is_taken_up(written: Written, tmp_path: Path, workers: int) -> None:
    directory = tmp_path / "again"
    shutil.copytree(written.killed, directory)
    assert sorted(write(directory, workers=workers)) == list(range(40, 60))
    assert content(directory) == content(written.whole)


@pytest.mark.parametrize("damage", ["part", "journal", "nothing written"])
def test_a_damaged_draft_is_not_believed(written: Written, tmp_path: Path, damage: str) -> None:
    directory = tmp_path / "again"
    shutil.copytree(written.killed, directory)
    part, journal = (directory / f".train.beton.{name}" for name in ("part", "journal"))
    match damage:
        case "part":
            changed = bytearray(part.read_bytes())
            changed[writer.next_page(1) + 3 * 32 * 32 * 20 + 5] ^= 1  # in image 20
            part.write_bytes(changed)
        case "journal":
            journal.write_bytes(journal.read_bytes()[: 32 + 20 * writer.ROW.itemsize + 7])
        case _:
            part.unlink()
    first = 0 if damage == "nothing written" else 20
    assert write(directory) == list(range(first, 60))
    assert content(directory) == content(written.whole)


def test_a_draft_of_something_else_is_thrown_away(written: Written, tmp_path: Path) -> None:
    directory = tmp_path / "again"
    shutil.copytree(written.killed, directory)
    labelled = replace(synthetic("train", 60), labels=np.zeros(60, np.int64))
    assert write(directory, labelled) == list(range(60))
    assert read_table(beton_path(directory, "train")).label_N.sum() == 0


def test_an_interrupted_writer_is_taken_up(tmp_path: Path) -> None:
    source = synthetic("train", 60)

    def pixels(index: int) -> Any:
        if index == 31:
            raise KeyboardInterrupt
        return source.pixels(index)

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, replace(source, pixels=pixels))
    assert write(tmp_path) == list(range(31, 60))


def photographs_in(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        Image.fromarray(photographs(20).pixels(k)).save(folder / name)


def test_bad_files_are_named_at_once_and_cost_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    for name in "ab":
        photographs_in(images / "train" / name, *(f"{k}.png" for k in range(10)))
    bad = [images / "train/a/3.png", images / "train/b/7.png"]
    whole = [path.read_bytes() for path in bad]
    bad[0].write_bytes(b"nothing")
    bad[1].write_bytes(whole[1][:100])
    command = ["imagefolder", str(out), "--source-dir", str(images)]
    assert main(command) == 1
    said = capsys.readouterr().err
    assert "train.beton: 2 of 20 images cannot be stored" in said
    assert all(f"{path}: not an image that can be read" in said for path in bad)
    assert "--skip-damaged" in said
    shutil.copytree(out, tmp_path / "skipping")
    bad[0].write_bytes(whole[0])
    bad[1].unlink()
    draft = read_journal(out)
    assert main(command) == 0
    table = read_table(beton_path(out, "train"))
    assert (len(draft), len(table), table.label_N.tolist()) == (18, 19, [0] * 10 + [1] * 9)
    places = table.offset_N.tolist()
    assert sorted(places)[:18] == sorted(draft)  # not stored again: the repaired one lies behind them
    assert places[3] == max(places)
    bad[0].write_bytes(b"nothing")
    assert main(["imagefolder", str(tmp_path / "skipping"), *command[2:], "--skip-damaged"]) == 0
    manifest = read_manifest(tmp_path / "skipping", "train")
    assert (manifest.images, list(manifest.damaged or {})) == (18, [str(bad[0])])
    assert f"left out: {bad[0]}" in capsys.readouterr().out
    assert verify_split(tmp_path / "skipping", "train") == manifest


def read_journal(directory: Path) -> list[int]:
    rows = np.frombuffer((directory / ".train.beton.journal").read_bytes()[32:], writer.ROW)
    return [int(row["metadata"]["image"]["data_ptr"]) for row in rows]


def test_a_draft_does_not_mix_files_that_changed(tmp_path: Path) -> None:
    """An image that was replaced after it had been stored is read again; its path alone says nothing."""
    folder, out = tmp_path / "images/train/a", tmp_path / "out"
    photographs_in(folder, *(f"{k}.png" for k in range(5)))
    whole = (folder / "4.png").read_bytes()
    (folder / "4.png").write_bytes(b"nothing")
    command = ["imagefolder", str(out), "--source-dir", str(tmp_path / "images")]
    assert main(command) == 1
    (folder / "4.png").write_bytes(whole)
    Image.new("RGB", (30, 20), "red").save(folder / "1.png")
    assert main(command) == 0
    assert read_table(beton_path(out, "train")).width_N[1] == 30


def test_a_folder_that_goes_away_is_no_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photographs_in(tmp_path / "images/train/a", *(f"{k}.png" for k in range(5)))
    source = open_images("imagefolder", "train", tmp_path / "images")
    stamps = source.stamps()
    (tmp_path / "images/train/a/2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"2\.png"):
        list(encoded(source, Storage("jpg"), 1, range(len(stamps))))


def test_a_file_system_without_locks_is_written_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As Lustre is often mounted; only "somebody holds it" means that another process is writing."""

    def unsupported(*arguments: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("pretrain.data.beton.writer.fcntl.flock", unsupported)
    assert main(["synthetic", str(tmp_path), "--splits", "test"]) == 0
    assert "cannot be locked (Function not implemented)" in capsys.readouterr().err


def test_another_source_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not taken for what is there; but a folder that is gone, or moved, is no other one."""
    for name in ("one", "two"):
        photographs_in(tmp_path / name / "train/a", f"{name}.png", "b.png")
    commands = {n: ["imagefolder", str(tmp_path / "out"), "--source-dir", str(tmp_path / n)] for n in ("one", "two")}
    assert main(commands["one"]) == 0
    assert main(commands["two"]) == 1
    assert "was written from other files (2 images, now 2); --force replaces it" in capsys.readouterr().err
    shutil.move(tmp_path / "one", tmp_path / "moved")
    assert main(commands["one"]) == 0
    assert main([*commands["one"][:-1], str(tmp_path / "moved")]) == 0
    assert capsys.readouterr().out.count("already written, skipped") == 2


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with (
        writer.BetonWriter(beton_path(tmp_path, "train"), b"x" * 32, np.arange(60, dtype=np.uint64)),
        pytest.raises(BlockingIOError, match="another process is writing it"),
    ):
        write(tmp_path)


def test_a_full_disk_is_explained_and_loses_nothing(written: Written, tmp_path: Path) -> None:
    """A limit on the size of files stands for the full disk: the same call fails, with another number."""
    limit = (  # 2**23: where the images begin
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n        "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2**23 + 40 * 3072,) * 2)"
    )
    done = in_a_process(tmp_path / "x", limit)
    assert done.returncode == 1
    assert "train.beton: no room after" in done.stderr
    assert "--max-side" in done.stderr
    assert sorted(write(tmp_path / "x")) != list(range(60))
    assert content(tmp_path / "x") == content(written.whole)


def test_too_little_room_is_told_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(write_beton.shutil, "disk_usage", lambda path: usage._replace(free=2_000_000))
    assert main(["synthetic", str(tmp_path), "--splits", "train"]) == 1
    assert "1024 images, about 3 MB, 2 MB are free; make room" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    assert main(["synthetic", str(tmp_path), "--splits", "test"]) == 0
    assert "256 images, about 1 MB, 2 MB are free" in capsys.readouterr().out


def test_jpegs_that_fit_are_kept(tmp_path: Path) -> None:
    """As they are: colour and grey; compressed again: too large, of four inks, damaged, and other formats."""
    folder = tmp_path / "images" / "train" / "one"
    folder.mkdir(parents=True)
    pixels = photographs(9).pixels(8)
    image = Image.fromarray(pixels)
    image.save(folder / "a.jpg", quality=71)
    image.convert("L").save(folder / "b.jpg")
    image.resize((300, 40)).save(folder / "c.jpg")
    image.convert("CMYK").save(folder / "d.jpg")
    image.save(folder / "e.png")
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, restart_marker_rows=1)
    stream = bytearray(buffer.getvalue())
    middle = len(stream) // 2
    stream[middle : middle + 20] = bytes(20)  # libjpeg warns, and goes on
    (folder / "f.jpg").write_bytes(stream)
    source = open_images("imagefolder", "train", tmp_path / "images")
    manifest = write_split(source, tmp_path, dataset="imagefolder", split="train", storage=Storage("jpg", 200, 90))
    table = read_table(beton_path(tmp_path, "train"))
    stored = [bytes(table.data[low : low + size]) for low, size in zip(table.offset_N, table.size_N, strict=True)]
    same = [
        content == (folder / name).read_bytes()
        for content, name in zip(stored, sorted(x.name for x in folder.iterdir()))
    ]
    assert same == [True, True, False, False, False, False]
    assert manifest.jpegs_kept == 2
    assert table.width_N[2] == 200
    assert verify_split(tmp_path, "train", "imagefolder", workers=2) == manifest


def test_verify_finds_what_was_changed(written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test"):
        shutil.copy(beton_path(written.whole, "train"), beton_path(tmp_path, split))
        shutil.copy(manifest_path(written.whole, "train"), manifest_path(tmp_path, split))
    assert main(["synthetic", str(tmp_path), "--verify"]) == 0
    assert capsys.readouterr().out.count("60 images are as they were written") == 2
    path, table = beton_path(tmp_path, "test"), read_table(beton_path(tmp_path, "test"))
    changed = bytearray(path.read_bytes())
    changed[int(table.offset_N[33]) + 11] ^= 1
    path.write_bytes(changed)
    assert main(["synthetic", str(tmp_path), "--verify"]) == 1
    assert "samples 0 to 59: other bytes than were written" in capsys.readouterr().err
    text = manifest_path(tmp_path, "train").read_text()
    manifest = read_manifest(tmp_path, "train")
    for old, new, problem in (
        (manifest.labels_sha256, "0" * 64, "the labels differ"),
        ('"images": 60', '"images": 61', "got 60 samples, expected the manifest's 61"),
        (str(manifest.blocks_crc32[0]), "5", "samples 0 to 59: other bytes"),
    ):
        assert old in text
        manifest_path(tmp_path, "train").write_text(text.replace(old, new))
        with pytest.raises(ValueError, match=problem):
            verify_split(tmp_path, "train")


def test_verify_names_an_image_that_does_not_decode(jpeg_directory: Path, tmp_path: Path) -> None:
    for path in jpeg_directory.iterdir():
        shutil.copy(path, tmp_path / path.name)
    table = read_table(beton_path(tmp_path, "train"))
    changed = bytearray(beton_path(tmp_path, "train").read_bytes())
    low = int(table.offset_N[5])
    changed[low : low + 4] = bytes(4)
    beton_path(tmp_path, "train").write_bytes(changed)
    with pytest.raises(ValueError, match=r"sample 5 is not a JPEG[\s\S]*samples 0 to 25: other bytes"):
        verify_split(tmp_path, "train", workers=2)


def test_manifests_from_before_checksums_of_blocks(raw_directory: Path, tmp_path: Path) -> None:
    for path in raw_directory.iterdir():
        shutil.copy(path, tmp_path / path.name)
    lines = manifest_path(tmp_path, "train").read_text().splitlines()
    first = next(k for k, line in enumerate(lines) if "blocks_crc32" in line)
    table = read_table(beton_path(tmp_path, "train"))
    payload = zlib.crc32(b"".join(table.data[o : o + s].tobytes() for o, s in zip(table.offset_N, table.size_N)))
    old = "\n".join(lines[:first]) + f'\n  "payload_crc32": {payload}\n}}\n'
    manifest_path(tmp_path, "train").write_text(old)
    assert verify_split(tmp_path, "train").images == RAW_IMAGES
    manifest_path(tmp_path, "train").write_text(old.replace(str(payload), "7"))
    with pytest.raises(ValueError, match="other bytes than were written"):
        verify_split(tmp_path, "train")
