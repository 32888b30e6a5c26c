"""A whole evaluation on a small run: refused, done, cached, reused; with images in place of a data set."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from eval import features
from eval.__main__ import main
from eval.encoder import new_encoder
from eval.tasks import probe
from eval.tasks.knn import knn_accuracy
from pretrain.batch import Batch
from pretrain.checkpoint import newest_checkpoint, write_checkpoint
from pretrain.config import EncoderConfig, PretrainConfig, run_fingerprint
from pretrain.configio import dump_yaml
from pretrain.models.encoder import build_encoder
from pretrain.objectives.base import build_objective
from pretrain.rundir import RunDirectory, write_json, write_text

IMAGES = {"train": 240, "test": 60}
SETTINGS = ["l2=[0.1, 0.01, 0.001]", "neighbours.neighbours=9"]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int | None]]:
    """Puts coloured images in place of a data set; returns which splits were read, with their limits."""
    seen: list[tuple[str, int | None]] = []

    def batches(
        directory: Path, split: str, *, size_px: int, batch_size: int, images: int | None = None, **_: int
    ) -> Iterator[Batch]:
        seen.append((split, images))
        yield from coloured(split, size_px, batch_size, images or IMAGES[split])

    monkeypatch.setattr(features, "evaluation_batches", batches)
    return seen


def coloured(split: str, size_px: int, batch_size: int, images: int) -> Iterator[Batch]:
    """Seven classes by colour, with noise."""
    generator = torch.Generator().manual_seed(len(split))
    labels = torch.randint(7, (images,), generator=generator)
    bits = torch.stack([(labels + 1) >> shift & 1 for shift in range(3)], 1)
    noise = torch.randint(0, 40, (images, 1, 3, size_px, size_px), generator=generator)
    views = (noise + 150 * bits[:, None, :, None, None]).to(torch.uint8)
    for low in range(0, images, batch_size):
        part = slice(low, low + batch_size)
        yield Batch(views[part], labels[part], torch.arange(images)[part])


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., RunDirectory]:
    """Writes the directory of a small run."""

    def make(*, finished: bool = True, scale: float = 1.0) -> RunDirectory:
        run = RunDirectory(tmp_path / "run")
        config = PretrainConfig.model_validate(
            {
                "epochs": 0,
                "augmentation": {"crop_size_px": 16},
                "encoder": {"architecture": "resnet18", "width": 0.125, "zero_init_last_gamma": False},
                "objective": {"name": "simclr"},
            }
        )
        write_text(run.config, dump_yaml(config))
        torch.manual_seed(0)
        encoder = build_encoder(config.encoder)
        weights = {f"encoder.{key}": value * scale for key, value in encoder.state_dict().items()}
        content = {"step": 3, "fingerprint": run_fingerprint(config), "config": config.model_dump(mode="json")}
        write_checkpoint(run.checkpoints, {**content, "model": {**weights, "projector.x": torch.ones(2)}}, keep=1)
        if finished:
            write_json(run.result, {"fingerprint": run_fingerprint(config), "total_steps": 3})
        return run

    return make


def result_of(run: RunDirectory, task: str) -> dict:  # type: ignore[type-arg]
    (path,) = run.path.glob(f"eval/{task}-*/result.json")
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def test_linear_from_start_to_result(
    make_run: Callable[..., RunDirectory], read: list[tuple[str, int | None]], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    assert main(["linear", str(run.path), *SETTINGS]) == 0
    result = result_of(run, "linear")
    assert result["top1"] > 95
    assert result["top1_interval"][0] < result["top1"] <= result["top1_interval"][1] + 1e-9
    assert result["top1"] <= result["top5"]
    assert len(result["per_class"]) == 7
    assert sum(map(sum, result["confusion"])) == 60
    assert 0 < result["train_loss"] < 1
    assert result["train_top1"] > 95
    assert result["test_loss"] > 0
    assert result["hyperparameters"] == {"l2": result["l2"]}
    assert all(row["held_out_loss"] > 0 and row["train_loss"] > 0 for row in result["grid"])
    assert result["knn_top1"] > 90
    assert [row["l2"] for row in result["grid"]] == [0.1, 0.01, 0.001]
    assert result["l2"] in (0.1, 0.01, 0.001)
    assert result["run"] == {
        "fingerprint": result["run"]["fingerprint"],
        "step": 3,
        "checkpoint": "step_00000003.pt",
        "finished": True,
    }
    assert (result["data"]["train_images"], result["data"]["test_images"]) == (240, 60)
    assert result["environment"]["packages"]["torch"]
    assert result["seconds"]["total"] > 0
    assert "top-1" in capsys.readouterr().out
    assert read == [("train", None), ("test", None)]


def test_every_evaluation_is_measured_in_ieee_float32(
    make_run: Callable[..., RunDirectory], read: list[tuple[str, int | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)  # torch's default
    assert main(["knn", str(make_run().path), "neighbours.neighbours=9"]) == 0
    assert not torch.backends.cudnn.allow_tf32


def test_second_call_only_prints(
    make_run: Callable[..., RunDirectory], read: list[tuple[str, int | None]], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    assert main(["linear", str(run.path), *SETTINGS]) == 0
    first = capsys.readouterr().out
    written = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()}
    assert main(["linear", str(run.path), *SETTINGS, "batch_size=7"]) == 0
    assert capsys.readouterr().out == first
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.is_file()} == written
    assert len(read) == 2


def test_features_are_shared_between_tasks_and_batch_size_changes_nothing(
    make_run: Callable[..., RunDirectory], read: list[tuple[str, int | None]]
) -> None:
    run = make_run()
    assert main(["linear", str(run.path), *SETTINGS]) == 0
    assert main(["knn", str(run.path), "neighbours.neighbours=9"]) == 0
    assert len(read) == 2, "the second task found the features"
    assert result_of(run, "knn")["knn_top1"] == result_of(run, "linear")["knn_top1"]
    assert main(["knn", str(run.path), "neighbours.neighbours=9", "cache=false", "batch_size=7", "seed=0"]) == 2
    cached = {path.name: np.load(path) for path in run.path.glob("eval/features-*/x.npy")}
    assert cached


def test_neighbours_that_linear_has_counted_are_not_counted_again(
    make_run: Callable[..., RunDirectory], read: list[tuple[str, int | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    counted = []
    monkeypatch.setattr(probe, "knn_accuracy", lambda *a, **k: counted.append(0) or knn_accuracy(*a, **k))
    assert main(["linear", str(run.path), *SETTINGS]) == 0
    assert main(["knn", str(run.path), "neighbours.neighbours=9"]) == 0
    assert len(counted) == 1
    linear, knn = result_of(run, "linear"), result_of(run, "knn")
    for name in ("knn_top1", "knn_plain_top1", "knn_neighbours", "data"):
        assert knn[name] == linear[name], name
    assert main(["knn", str(run.path), "neighbours.neighbours=7"]) == 0
    assert len(counted) == 2, "another number of neighbours"


@pytest.mark.parametrize("damage", ["cut", "foreign", "other shape", "not a number"])
def test_a_damaged_feature_cache_is_made_anew(
    make_run: Callable[..., RunDirectory], read: list[tuple[str, int | None]], damage: str
) -> None:
    run = make_run()
    assert main(["knn", str(run.path), "neighbours.neighbours=9"]) == 0
    before = result_of(run, "knn")["knn_top1"]
    for path in run.path.glob("eval/features-*/x.npy"):
        x_ND = np.load(path)
        match damage:
            case "cut":
                path.write_bytes(path.read_bytes()[:500])
            case "foreign":
                path.write_bytes(b"x")
            case "other shape":
                np.save(path, x_ND[1:])
            case _:
                np.save(path, np.full_like(x_ND, np.nan))
    for path in run.path.glob("eval/knn-*/result.json"):
        path.unlink()
    assert main(["knn", str(run.path), "neighbours.neighbours=9"]) == 0
    assert result_of(run, "knn")["knn_top1"] == before
    assert len(read) == 4


def test_batches_of_any_size_give_the_same_features(
    make_run: Callable[..., RunDirectory], read: list[tuple[str, int | None]]
) -> None:
    run = make_run()
    assert main(["knn", str(run.path), "batch_size=7"]) == 0
    one = np.concatenate([np.load(p) for p in sorted(run.path.glob("eval/features-*/x.npy"))])
    for path in run.path.glob("eval/*/*"):
        path.unlink()
    assert main(["knn", str(run.path), "batch_size=500"]) == 0
    other = np.concatenate([np.load(p) for p in sorted(run.path.glob("eval/features-*/x.npy"))])
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_random_encoder_is_the_one_that_the_run_started_from(
    make_run: Callable[..., RunDirectory], read: list[tuple[str, int | None]]
) -> None:
    run = make_run(scale=0.5)
    assert main(["linear", str(run.path), *SETTINGS]) == 0
    (trained,) = run.path.glob("eval/linear-*")
    assert main(["linear", str(run.path), *SETTINGS, "initialisation=random"]) == 0
    (random,) = set(run.path.glob("eval/linear-*")) - {trained}
    assert len(read) == 4, "features of another encoder"
    result = json.loads((random / "result.json").read_text())
    assert result["settings"]["initialisation"] == "random"
    assert "initialisation" not in json.loads((trained / "result.json").read_text())["settings"]
    config = PretrainConfig.model_validate({"encoder": {"architecture": "resnet18", "width": 0.125}, "seed": 7})
    expected = build_objective(config.objective, config.encoder, classes=2, seed=config.seed)
    found = new_encoder(config.encoder, seed=7).state_dict()
    assert torch.equal(found["layer4.1.conv2.weight"], expected.state_dict()["encoder.layer4.1.conv2.weight"])


def test_train_images_limits_the_training_split_alone(
    make_run: Callable[..., RunDirectory], read: list[tuple[str, int | None]]
) -> None:
    run = make_run()
    assert main(["linear", str(run.path), *SETTINGS, "train_images=120"]) == 0
    assert read == [("train", 120), ("test", None)]
    assert result_of(run, "linear")["data"]["train_images"] == 120
    assert main(["knn", str(run.path)]) == 0
    assert result_of(run, "knn")["data"]["train_images"] == 240, "features of fewer images are not those of all"


def test_unfinished_run_is_refused_unless_allowed(
    make_run: Callable[..., RunDirectory], read: list[tuple[str, int | None]], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(finished=False)
    assert main(["linear", str(run.path), *SETTINGS]) == 1
    assert "allow_unfinished=true" in capsys.readouterr().err
    assert not read
    assert main(["linear", str(run.path), *SETTINGS, "allow_unfinished=true"]) == 0
    assert not result_of(run, "linear")["run"]["finished"]
    assert "not finished" in capsys.readouterr().out
    write_json(run.result, {})
    assert main(["linear", str(run.path), *SETTINGS]) == 0
    assert result_of(run, "linear")["run"]["finished"], "the result of an unfinished run is not reused"


def test_result_of_another_run_in_the_same_place_is_not_reused(
    make_run: Callable[..., RunDirectory], read: list[tuple[str, int | None]]
) -> None:
    run = make_run()
    assert main(["knn", str(run.path)]) == 0
    (path,) = run.path.glob("eval/knn-*/result.json")
    result = json.loads(path.read_text())
    result["run"]["fingerprint"] = "another"
    write_json(path, result)
    assert main(["knn", str(run.path)]) == 0
    assert json.loads(path.read_text())["run"]["fingerprint"] != "another"


def test_diverged_encoder_has_no_result(
    make_run: Callable[..., RunDirectory], read: list[tuple[str, int | None]], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(scale=float("nan"))
    assert main(["linear", str(run.path), *SETTINGS]) == 1
    assert "not finite" in capsys.readouterr().err
    assert not list(run.path.glob("eval/*/result.json"))


@pytest.mark.parametrize("damage", ["cut", "foreign", "missing", "other encoder"])
def test_unusable_checkpoint_is_named(
    make_run: Callable[..., RunDirectory],
    read: list[tuple[str, int | None]],
    capsys: pytest.CaptureFixture[str],
    damage: str,
) -> None:
    run = make_run()
    path = newest_checkpoint(run.checkpoints)
    assert path is not None
    match damage:
        case "cut":
            path.write_bytes(path.read_bytes()[:1000])
        case "foreign":
            torch.save({"weights": torch.ones(1)}, path)
        case "missing":
            path.unlink()
        case _:
            content = torch.load(path, weights_only=True)
            wide = build_encoder(EncoderConfig(architecture="resnet18", width=0.25))
            content["model"] = {f"encoder.{key}": value for key, value in wide.state_dict().items()}
            torch.save(content, path)
    assert main(["linear", str(run.path), *SETTINGS]) == 1
    assert str(run.path) in capsys.readouterr().err
    assert not read


def test_no_run_and_wrong_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["linear", str(tmp_path)]) == 1
    assert "is not a run" in capsys.readouterr().err
    assert main(["linear", str(tmp_path), "train_image=1"]) == 2
    assert "did you mean 'train_images'" in capsys.readouterr().err


def test_progress_bar_stays_off_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    with features.progress_bar("features", "images") as advance:
        advance(3)
    assert tuple(capsys.readouterr()) == ("", "")
