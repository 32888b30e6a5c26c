"""The functions for other people's loops: importable by their names, each with an example that runs."""

import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pretrain import load_encoder
from pretrain.checkpoint import CheckpointError, write_checkpoint
from pretrain.config import EncoderConfig, PretrainConfig
from pretrain.models.encoder import build_encoder

LOSSES = ("barlow_twins_loss", "byol_loss", "dcl_loss", "ntxent_loss", "simsiam_loss", "vicreg_loss", "wmse_loss")
PUBLIC = [
    *(("pretrain.losses", name) for name in LOSSES),
    ("pretrain.optim", "LARS"),
    ("pretrain.models", "convert_sync_batch_norm"),
    ("pretrain", "load_encoder"),
]


@pytest.mark.parametrize(("module", "name"), PUBLIC)
def test_each_has_an_example_that_runs(module: str, name: str) -> None:
    function = getattr(importlib.import_module(module), name)
    assert name in importlib.import_module(module).__all__
    examples = [test for test in doctest.DocTestFinder(recurse=False).find(function, name, globs={}) if test.examples]
    assert examples, f"{module}.{name} has no example"
    for test in examples:
        assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize("module", ["pretrain", "pretrain.optim", "pretrain.models"])
def test_torch_is_imported_when_it_is_first_needed(module: str) -> None:
    code = f"import sys, {module}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parent.parent)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = importlib.import_module(module).nothing


def test_the_encoder_of_a_run(tmp_path: Path) -> None:
    config = PretrainConfig(encoder=EncoderConfig(architecture="resnet18", width=0.0625, stem="small"))
    trained = build_encoder(config.encoder).eval()
    model = {f"encoder.{key}": value for key, value in trained.state_dict().items()} | {"head.weight": torch.ones(1)}
    content = {"config": config.model_dump(mode="json"), "model": model}
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        load_encoder(tmp_path)
    path = write_checkpoint(tmp_path / "checkpoints", {"step": 3, "fingerprint": "0" * 12, **content}, keep=1)
    images = torch.rand(2, 3, 16, 16)
    for encoder in (load_encoder(tmp_path), load_encoder(str(tmp_path), checkpoint=path)):
        assert torch.equal(encoder(images), trained(images))
        assert encoder.feature_width == 32
        assert not encoder(images).requires_grad
