"""Every unusual kind of pixel is stored by a stated policy, counted, and told: none becomes another picture unseen."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pretrain.data.beton.encode import Storage, without_metadata
from pretrain.data.beton.format import read_table
from pretrain.data.catalog import beton_path, read_manifest
from pretrain.data.kernels import jpeg
from pretrain.data.renderer import Renderer
from pretrain.data.sources.images import from_encoded
from pretrain.data.sources.pixels import PixelPolicy, read_pixels
from pretrain.data.write_beton import main, write_split
from tests.data.conftest import photographs


def file_of(image: Image.Image, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def ramp(dtype: str, high: float) -> Image.Image:
    return Image.fromarray((np.linspace(0, high, 256).reshape(16, 16)).astype(dtype))


def photograph() -> Image.Image:
    return Image.fromarray(photographs(9).pixels(8))


def stored(content: bytes, policy: PixelPolicy | None = None) -> tuple[np.ndarray, str]:
    image, treated = read_pixels(content, policy or PixelPolicy())
    return np.asarray(image), treated.name or ""


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(kind: str) -> None:
    pixels, treated = stored(file_of(ramp("uint16", 65535), kind))
    np.testing.assert_array_equal(pixels[:, :, 0].reshape(-1), np.arange(256))
    assert treated == "SCALED"
    twelve_bits = file_of(ramp("uint16", 4095), kind)
    assert stored(twelve_bits)[0].max() == 16
    assert stored(twelve_bits, PixelPolicy(value_range=(0, 4095)))[0].max() == 255


def test_floats_need_their_range() -> None:
    content = file_of(ramp("float32", 1.0), "TIFF")
    with pytest.raises(ValueError, match="mode F, whose range is not known: name it, --range LOW HIGH"):
        stored(content)
    np.testing.assert_array_equal(stored(content, PixelPolicy(value_range=(0, 1)))[0][:, :, 2].flat, np.arange(256))
    with pytest.raises(ValueError, match="not finite"):
        stored(file_of(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"), PixelPolicy(value_range=(0, 1)))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
def test_what_lies_under_transparent_pixels_is_not_shown(mode: str) -> None:
    """On white, or the colour that is named. An image that is opaque everywhere is left as it is."""
    if mode in ("RGBA", "LA"):
        image, settings = Image.new(mode, (8, 8), (90, 0) if mode == "LA" else (90, 0, 0, 0)), {}
        opaque = Image.new(mode, (8, 8), (90, 255) if mode == "LA" else (90, 0, 0, 255))
        assert stored(file_of(opaque, "PNG"))[1] == ""
    else:
        grey = Image.new("L", (8, 8), 90)
        image = grey.quantize(2) if mode == "P" else grey
        settings = {"transparency": image.getpixel((0, 0))}
    content = file_of(image, "PNG", **settings)
    assert [stored(content)[0].min(), stored(content)[1]] == [255, "COMPOSITED"]
    assert stored(content, PixelPolicy(background="black"))[0].max() == 0


@pytest.mark.parametrize("orientation", range(2, 9))
def test_images_are_stored_upright(orientation: int) -> None:
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    content = file_of(photograph(), "PNG", exif=exif)
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    pixels, treated = stored(content)
    np.testing.assert_array_equal(pixels, np.asarray(wanted))
    assert treated == "TURNED"


def test_where_a_picture_was_taken_is_not_stored(tmp_path: Path) -> None:
    """Kept JPEG files lose EXIF, comments and what follows their end; not one pixel changes."""
    exif = Image.Exif()
    exif[0x010E] = "52.5 N, 13.4 E"
    plain = file_of(photograph(), "JPEG", quality=80, progressive=True, restart_marker_rows=1)
    private = file_of(
        photograph(), "JPEG", quality=80, progressive=True, restart_marker_rows=1, exif=exif, comment="me"
    )
    exif[0x0112] = 6
    turned = file_of(photograph(), "JPEG", exif=exif)
    contents = [private + b"trailing", turned]
    images = from_encoded(contents.__getitem__, ["private", "turned"], [0, 0], ("a",))
    manifest = write_split(images, tmp_path, dataset="mine", split="train", storage=Storage("jpg", 500))
    table = read_table(beton_path(tmp_path, "train"))
    assert bytes(table.data[table.offset_N[0] :][: table.size_N[0]]) == plain
    assert b"52.5" not in bytes(table.data)
    assert (table.width_N[1], table.height_N[1]) == photograph().size[::-1]
    assert manifest.treated == {"JPEG files as they were": 1, "turned upright (EXIF orientation)": 1}


@pytest.mark.parametrize("place", ["in the scan", "restart", "cut"])
def test_jpegs_with_markers_out_of_place_are_not_kept(place: str) -> None:
    """libjpeg reads them with a warning, and libturbojpeg, on another machine, stops the training."""
    content = bytearray(file_of(photograph(), "JPEG", restart_marker_rows=1))
    assert without_metadata(bytes(content)) == content
    if place == "cut":
        assert without_metadata(bytes(content[:-300])) is None
        return
    restart = content.index(b"\xff\xd1")
    low = restart + (9 if place == "in the scan" else 0)
    content[low : low + 2] = b"\xff\x33" if place == "in the scan" else b"\xff\xd5"
    assert without_metadata(bytes(content)) is None


def test_a_writer_without_turbojpeg_writes_what_every_machine_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(file_of(photograph(), "JPEG", restart_marker_rows=1))
    restart = content.index(b"\xff\xd1")
    content[restart : restart + 2] = b"\xff\xd5"
    with monkeypatch.context() as patch:
        patch.setattr(jpeg, "load", lambda: False)
        images = from_encoded(lambda index: bytes(content), ["stray"], [0], ("a",))
        write_split(images, tmp_path, dataset="mine", split="train", storage=Storage("jpg", 500))
    assert jpeg.load()
    Renderer(read_table(beton_path(tmp_path, "train")), 1).decoded(np.array([0]))


def test_huge_images_are_read_in_bands_or_left_out_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                                           monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    large = photograph().resize((1600, 1300)).convert("RGBA")
    large.putalpha(Image.linear_gradient("L").resize(large.size))
    content = file_of(large, "PNG")
    whole = np.asarray(read_pixels(content, PixelPolicy(), 100)[0], int)
    monkeypatch.setattr("pretrain.data.sources.pixels._HUGE_PIXELS", 1_000_000)
    image, treated = read_pixels(content, PixelPolicy(), 100)
    assert np.abs(np.asarray(image, int) - whole).max() <= 3
    assert treated.name == "COMPOSITED|REDUCED"
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("0.png", "1.png"):
        (folder / name).write_bytes(content if name == "0.png" else file_of(photograph(), "PNG"))
    assert main([str(folder), str(tmp_path / "out"), "--max-megapixels", "2"]) == 0
    why = {str(folder / "0.png"): "2 megapixels, more than --max-megapixels 2"}
    assert read_manifest(tmp_path / "out", "train").damaged == why
    assert f"left out: {folder / '0.png'}: 2 megapixels" in capsys.readouterr().out


def test_the_first_of_several_frames_and_formats_that_need_a_plugin() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    pixels, treated = stored(file_of(frames[0], "TIFF", save_all=True, append_images=frames[1:]))
    assert (pixels[0, 0].tolist(), treated) == ([255, 0, 0], "FIRST_FRAME")
    for content, wanted in (
        (struct.pack(">I4s4s", 24, b"ftyp", b"heic") + bytes(90), "a HEIC image; pip install pillow-heif"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"<html>", "not an image that can be read"),
    ):
        with pytest.raises(ValueError, match=wanted):
            stored(content)
    with pytest.raises(ValueError, match="not an image"):
        stored(file_of(photograph(), "PNG")[:500])


def test_policies_are_remembered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    ramp("uint16", 4095).save(folder / "a.png")
    command = [str(folder), str(tmp_path / "out")]
    assert main([*command, "--range", "0", "4095", "--background", "black"]) == 0
    manifest = read_manifest(tmp_path / "out", "train")
    assert manifest.pixel_policy == {"background": "black", "value_range": [0.0, 4095.0], "max_megapixels": 256.0}
    assert "1 of more than 8 bits, scaled" in capsys.readouterr().out
    assert main([*command, "--range", "0", "4095", "--background", "black"]) == 0
    assert main(command) == 1
    assert "'background': 'black'" in capsys.readouterr().err
    assert main([*command, "--range", "1", "0"]) == 1
    assert "expected LOW below HIGH" in capsys.readouterr().err


def test_labels_that_are_no_numbers_of_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A column is labels too; -7 and an id of three million are not."""
    np.save(tmp_path / "train_images.npy", np.zeros((5, 8, 8), np.uint8))
    command = ["arrays", str(tmp_path / "out"), "--source-dir", str(tmp_path)]
    for labels, wanted in (([0, 1, -7, 1, 0], "labels -7 to 1"), ([0, 3_000_000, 1, 1, 0], "labels 0 to 3000000")):
        np.save(tmp_path / "train_labels.npy", np.array(labels))
        assert main(command) == 1
        assert wanted in capsys.readouterr().err
    np.save(tmp_path / "train_labels.npy", np.array([[0], [1], [1], [0], [2]]))
    assert main(command) == 0
    assert read_table(beton_path(tmp_path / "out", "train")).label_N.tolist() == [0, 1, 1, 0, 2]
