"""What is odd about a data set is said before anything is trained on it, and has one outcome."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from pretrain.data.check import main
from pretrain.data.write_beton import main as write
from tests.data.conftest import photographs

SUFFIX = {"JPEG": "jpg", "TIFF": "tif"}


def save(path: Path, image: Image.Image, kind: str = "PNG", **settings: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, kind, **settings)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty plain photographs in two classes and splits, and one image of every odd kind."""
    root = tmp_path_factory.mktemp("odd") / "images"
    pictures = [Image.fromarray(photographs(40).pixels(k)) for k in range(40)]
    for k in range(40):
        save(root / ("test" if k % 4 == 3 else "train") / "ab"[k % 2] / f"{k}.jpg", pictures[k], "JPEG", quality=90)
    a, b, test = root / "train/a", root / "train/b", root / "test/a"
    shutil.copy(a / "0.jpg", b / "copy.jpg")  # the same file, in another class
    half = pictures[1].resize([side * 3 // 2 for side in pictures[1].size])
    save(test / "scaled.jpg", half, "JPEG", quality=60)  # nearly the same, in the test split
    exif = Image.Exif()
    exif[0x0112] = 6
    save(a / "turned.jpg", ImageOps.flip(pictures[4]), "JPEG", exif=exif)
    clear = ImageOps.mirror(pictures[6]).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(clear.size))
    save(a / "clear.png", clear)
    for mode in ("L", "LA", "P", "1", "CMYK"):
        image = ImageOps.mirror(pictures[8 + len(mode)]).convert(mode)
        save(b / f"{mode}.{'tif' if mode == 'CMYK' else 'png'}", image, "TIFF" if mode == "CMYK" else "PNG")
    save(a / "16 bit.png", Image.fromarray((np.mgrid[:40, :50][1] * 1300).astype(np.uint16)))
    for kind in ("GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF"):
        save(
            b / f"{kind}.{ {'TIFF': 'tif', 'JPEG2000': 'jp2'}.get(kind, kind.lower()) }",
            ImageOps.flip(pictures[9]),
            kind,
        )
    save(b / "frames.gif", pictures[10], "GIF", save_all=True, append_images=pictures[11:12])
    save(a / "tiny.png", Image.new("RGB", (3, 2), "red"))
    save(a / "slender.png", pictures[12].resize((200, 20)))
    save(a / "blank.png", Image.new("RGB", (40, 40), "white"))
    (a / "no image.png").write_bytes(b"<html>not found</html>")
    (a / "cut.jpg").write_bytes((root / "train/b/1.jpg").read_bytes()[:700])
    (a / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(90))
    (a / "link.jpg").symlink_to(a / "2.jpg")
    (a / "round").symlink_to(root)
    (a / ".hidden.png").write_bytes(b"")
    (a / "notes.txt").write_text("")
    return root


def test_every_oddity_is_found(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--json", str(tmp_path / "x.json"), "--html", str(tmp_path / "x.html")]) == 0
    said, found = capsys.readouterr().out, json.loads((tmp_path / "x.json").read_text())
    assert found["left_out"] == {
        "links to images that are here already": 1, "links to a folder above": 1, "hidden": 1, ".txt files": 1,
    }  # fmt: skip
    assert sorted(found["cannot_be_stored"]) == ["train/a/cut.jpg", "train/a/no image.png", "train/a/photo.heic"]
    assert "pip install pillow-heif" in found["cannot_be_stored"]["train/a/photo.heic"]
    assert found["same"] == [["train/a/0.jpg", "train/b/copy.jpg"]]
    assert ["train/a/0.jpg", "train/b/copy.jpg"] in found["in_several_classes"]
    assert ["train/b/1.jpg", "test/a/scaled.jpg"] in found["in_several_splits"]
    assert sorted(found["odd_sizes"]) == ["train/a/slender.png", "train/a/tiny.png"]
    assert {"train/a/blank.png"} <= set(found["blank"])
    for words in (
        "turned upright (EXIF orientation)",
        "transparent, laid on the background",
        "first of several frames",
    ):
        assert found["treated"][words] >= 1
    assert found["classes"]["test"] == {"a": 1, "b": 10}
    assert {"RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16"} == set(found["modes"])
    for line in ("train/a/0.jpg = train/b/copy.jpg", "smallest 3 x 2", "in several splits", "3 images"):
        assert line in said
    page = (tmp_path / "x.html").read_text()
    assert page.count("data:image/png;base64,") >= 8
    assert "&lt;" not in page.split("<h1>")[0]


def test_plain_images_give_no_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k in range(12):
        save(tmp_path / "ab"[k % 2] / f"{k}.png", Image.fromarray(photographs(12).pixels(k)))
    assert main([str(tmp_path), "--hold-out", "0.3"]) == 0
    said = capsys.readouterr().out
    assert "images                train 8, test 4" in said
    assert "=" not in said
    assert main([str(tmp_path / "none")]) == 1
    assert "no such folder" in capsys.readouterr().err
    assert main(["synthetic", "--splits", "test", "--background", "no colour"]) == 1
    assert "no colour" in capsys.readouterr().err


def test_odd_images_are_trained_on_and_evaluated(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything that `check` accepts is written, seen by training and measured; nothing else is."""
    from eval.__main__ import main as evaluate
    from pretrain.__main__ import main as pretrain

    assert write([str(folder), str(tmp_path / "data"), "--max-side", "64"]) == 1
    assert "train.beton: 3 of " in capsys.readouterr().err
    assert write([str(folder), str(tmp_path / "data"), "--max-side", "64", "--skip-damaged"]) == 0
    (tmp_path / "run.yaml").write_text(json.dumps({
        "data": {"dataset": str(folder), "directory": str(tmp_path / "data")}, "augmentation": {"crop_size_px": 16},
        "encoder": {"architecture": "resnet18", "width": 0.125, "stem": "small"}, "device": "cpu",
        "objective": {"name": "simclr", "projector": {"hidden_width": 8, "output_width": 8}}, "global_batch_size": 16,
        "epochs": 2, "schedule": {"warmup_epochs": 0.0}, "log": {"wandb": "disabled"},
    }))  # fmt: skip
    run = tmp_path / "run"
    assert pretrain([str(tmp_path / "run.yaml"), f"run.directory={run}", "run.stop_after_steps=3"]) == 75
    assert pretrain([str(tmp_path / "run.yaml"), f"run.directory={run}"]) == 0
    assert evaluate(["knn", str(run), "neighbours.neighbours=3"]) == 0
    flat = tmp_path / "flat"
    for k in range(20):
        save(flat / f"{k}.png", Image.fromarray(photographs(20).pixels(k)))
    capsys.readouterr()
    assert write([str(flat), str(tmp_path / "unlabelled"), "--hold-out", "0.2"]) == 0
    command = [
        str(tmp_path / "run.yaml"),
        f"data.directory={tmp_path / 'unlabelled'}",
        f"run.directory={tmp_path}/other",
    ]
    assert pretrain([*command, "data.dataset=imagefolder"]) == 0
    assert evaluate(["knn", f"{tmp_path}/other"]) == 1
    assert "expected measures without labels" in capsys.readouterr().err
