"""The exported encoder: the same features, torchvision's names, a card, and refusals of anything else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from eval.__main__ import main
from eval.encoder import load_encoder
from eval.result import EvaluationError
from eval.tasks.export import read_exported_encoder
from pretrain.config import PretrainConfig
from pretrain.configio import load
from pretrain.rundir import RunDirectory
from tests.eval.runs import result_of, write_run

OTHERS: dict[str, dict[str, Any]] = {"resnet18": {}, "convnet4": {"architecture": "convnet4", "widths": [8, 8, 8, 16]}}
WHY = {
    "resnet18": "width 0.125 instead of 1.0, stem strided instead of imagenet",
    "convnet4": "torchvision has no convnet4",
}


def exported(run: RunDirectory) -> Path:
    (folder,) = run.path.glob("eval/export-*")
    return folder


def test_torchvision_takes_the_weights_and_gives_the_same_features(small_data: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", small_data, width=1.0, stem="imagenet")
    assert main(["export", str(run.path)]) == 0
    result = result_of(run, "export")
    assert result["torchvision"] == "resnet18"
    network = torchvision.models.resnet18()
    network.fc = torch.nn.Identity()
    network.load_state_dict(load_file(exported(run) / "encoder.safetensors"))
    ours = load_encoder(run, load(PretrainConfig, run.config), device=torch.device("cpu")).module
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(images), ours(images), atol=1e-4, rtol=1e-4)
    card = (exported(run) / "README.md").read_text()
    assert "torchvision.models.resnet18()" in card
    assert sum(p.numel() for p in network.parameters()) == result["parameters"]


@pytest.mark.parametrize("architecture", ["resnet18", "convnet4"])
def test_other_shapes_say_why_and_come_back_whole(small_data: Path, tmp_path: Path, architecture: str) -> None:
    run = write_run(tmp_path / "run", small_data, **OTHERS[architecture])
    assert main(["knn", str(run.path)]) == 0
    assert main(["export", str(run.path)]) == 0
    result = result_of(run, "export")
    assert result["torchvision"] is None
    assert result["torchvision_reason"] == WHY[architecture]
    encoder, config = read_exported_encoder(exported(run) / "encoder.safetensors")
    ours = load_encoder(run, load(PretrainConfig, run.config), device=torch.device("cpu"))
    assert config == ours.config.encoder
    for key, value in ours.module.state_dict().items():
        assert torch.equal(encoder.state_dict()[key], value), key
    knn = result_of(run, "knn")
    card = (exported(run) / "README.md").read_text()
    assert f"nearest neighbours {knn['knn_top1']:.2f} %" in card


def test_card_is_written_anew_with_what_was_measured_since(small_data: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", small_data)
    assert main(["export", str(run.path)]) == 0
    assert "None yet" in (exported(run) / "README.md").read_text()
    assert main(["knn", str(run.path)]) == 0
    assert main(["export", str(run.path)]) == 0
    assert "nearest neighbours" in (exported(run) / "README.md").read_text()


@pytest.mark.parametrize("damage", ["cut", "foreign", "pickle", "missing", "weights"])
def test_other_files_are_refused(small_data: Path, tmp_path: Path, damage: str) -> None:
    run = write_run(tmp_path / "run", small_data)
    assert main(["export", str(run.path)]) == 0
    path = exported(run) / "encoder.safetensors"
    wanted = {
        "cut": "cannot be read",
        "foreign": "not an encoder of this project",
        "pickle": "cannot be read",
        "missing": "no such file",
        "weights": "do not fit",
    }[damage]
    match damage:
        case "cut":
            path.write_bytes(path.read_bytes()[:5000])
        case "foreign":
            save_file({"weight": torch.ones(3)}, path)
        case "pickle":
            torch.save({"weight": torch.ones(3)}, path)
        case "missing":
            path.unlink()
        case _:
            content = path.read_bytes()
            path.write_bytes(content.replace(b"bn1.weight", b"bn9.weight"))
    with pytest.raises(EvaluationError, match=wanted) as caught:
        read_exported_encoder(path)
    assert str(path) in str(caught.value)
