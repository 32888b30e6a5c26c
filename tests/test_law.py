"""The law on whole runs: 1, 2 and 4 ranks train the same network on real images."""

from pathlib import Path

import pytest
import torch

from tests.training import final_weights, losses, run, torchrun, written

# The first steps of the quick study's smallest batch, on more of its images.
QUICK = (
    "data.dataset=fashion_mnist",
    "global_batch_size=64",
    "data.images=40000",
    "data.loader=ffcv",
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written("fashion_mnist", tmp_path_factory.mktemp("images"))


# The shipped recipe has a higher rate and a colder loss, under which rounding grows faster.
@pytest.mark.parametrize(("steady", "steps"), [(True, 20), (False, 12)], ids=["steady", "shipped"])
def test_the_law_on_real_images(images: Path, tmp_path: Path, steady: bool, steps: int) -> None:
    for ranks in (1, 2, 4):
        stop = f"run.stop_after_steps={steps}"
        done = run(torchrun(tmp_path / str(ranks), images, ranks, *QUICK, stop, steady=steady))
        assert "saved; rerun the same command" in done.stderr, done.stderr[-3000:]
    expected_losses, expected = losses(tmp_path / "1"), final_weights(tmp_path / "1")
    assert len(expected_losses) == steps
    for ranks in ("2", "4"):
        torch.testing.assert_close(
            torch.tensor(losses(tmp_path / ranks)), torch.tensor(expected_losses), rtol=1e-4, atol=0
        )
        for name, value in final_weights(tmp_path / ranks).items():
            torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-3, msg=f"{ranks} ranks: {name}")
