"""The law on whole runs: 1, 2 and 4 ranks train the same network on real images."""

from pathlib import Path

import torch

from tests.training import final_weights, losses, run, torchrun, written

STEPS = 12  # after some twenty, rounding has grown beyond what is allowed here
# The first steps of the quick study's smallest batch, on more of its images.
QUICK = (
    "data.dataset=fashion_mnist",
    "global_batch_size=64",
    "data.images=40000",
    f"run.stop_after_steps={STEPS}",
    "data.loader=ffcv",
)


def test_the_law_on_real_images(tmp_path: Path) -> None:
    images = written("fashion_mnist", tmp_path)
    for ranks in (1, 2, 4):
        done = run(torchrun(tmp_path / str(ranks), images, ranks, *QUICK))
        assert "saved; rerun the same command" in done.stderr, done.stderr[-3000:]
    expected_losses, expected = losses(tmp_path / "1"), final_weights(tmp_path / "1")
    assert len(expected_losses) == STEPS
    for ranks in ("2", "4"):
        torch.testing.assert_close(
            torch.tensor(losses(tmp_path / ranks)), torch.tensor(expected_losses), rtol=1e-4, atol=0
        )
        for name, value in final_weights(tmp_path / ranks).items():
            torch.testing.assert_close(value, expected[name], rtol=1e-3, atol=1e-3, msg=f"{ranks} ranks: {name}")
