"""Linear evaluation: thirty SGD heads in one pass against one head, and L-BFGS against scikit-learn over an L2 grid.

    python -m tests.bench.linear_evaluation [heads|lbfgs|all] [--features DIR] [--rounds 3] [--images 10000]

DIR is a folder eval/features-* of a run (x.npy, labels.npy); without it, correlated rectified features are drawn. Heads
are timed on features computed once, and with the encoder of the quick study in the loop, as crop and flip need it.
Thirty settings are sixty heads: each is trained without the held-out images and with them.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from eval.config import DEFAULT_L2, LinearConfig, SgdSettings
from eval.features import Features
from eval.metrics import accuracy_percent
from eval.tasks.linear import fit_logistic, standardization
from eval.tasks.linear_sgd import Batches, _cached, fit_heads
from pretrain.config import EncoderConfig
from pretrain.models.encoder import build_encoder
from tests.bench.timing import interleaved, report

RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
DECAYS = (0.0, 1e-6, 1e-4)
EPOCHS = 2


def drawn_features(images: int, width: int = 64, classes: int = 10) -> Features:
    generator = torch.Generator().manual_seed(0)
    y_N = torch.randint(classes, (images,), generator=generator)
    centres_KD = 0.6 * torch.randn(classes, width, generator=generator)
    mixing_DD = torch.randn(width, width, generator=generator) * torch.logspace(0, -1.5, width)
    x_ND = torch.relu((centres_KD[y_N] + torch.randn(images, width, generator=generator)) @ mixing_DD)
    return Features(x_ND, y_N, torch.arange(images))


def stored_features(folder: Path, images: int) -> Features:
    x_ND, y_N = (torch.from_numpy(np.load(folder / f"{part}.npy")[:images]) for part in ("x", "labels"))
    return Features(x_ND, y_N, torch.arange(len(y_N)))


def time_heads(train: Features, rounds: int) -> None:
    few = Features(*(value[:2048] for value in vars(train).values()))
    for batch in (256, 1024):
        for with_encoder, part in ((True, few), (False, train)):
            one = sgd_run(part, (0.1,), (0.0,), batch=batch, with_encoder=with_encoder)
            thirty = sgd_run(part, RATES, DECAYS, batch=batch, with_encoder=with_encoder)
            medians = interleaved({"one": one, "thirty": thirty}, rounds)
            ratio = medians["thirty"] / medians["one"]
            if with_encoder:
                report(f"30 settings / 1, batch {batch}, images through the encoder", ratio, "x", 3.0, at_least=False)
            else:  # nothing but the heads' own arithmetic is left, which is 60 times as much
                print(f"30 settings / 1, batch {batch}, features computed once: {ratio:.2f}x")


def sgd_run(
    train: Features, rates: tuple[float, ...], decays: tuple[float, ...], *, batch: int, with_encoder: bool
) -> Callable[[], object]:
    """Two epochs of a grid."""
    test = Features(*(value[:1000] for value in vars(train).values()))
    sgd = SgdSettings(learning_rates=rates, weight_decays=decays, epochs=EPOCHS, batch_size=batch, augmented=False)
    config = LinearConfig(sgd=sgd)
    batches, steps, size = _cached(train, config)
    if with_encoder:
        batches = behind_an_encoder(batches)
    classes = int(train.labels_N.max()) + 1
    return lambda: fit_heads(batches, steps, size, train, test, config, classes=classes)


def behind_an_encoder(batches: Batches) -> Batches:
    """The same batches, each at the price of a forward pass of the quick study's encoder."""
    encoder = build_encoder(EncoderConfig(architecture="resnet18", width=0.125, stem="strided")).eval()
    encoder = encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def costly(epoch: int):  # type: ignore[no-untyped-def]
        for x_BD, y_B, index_B in batches(epoch):
            encoder(torch.zeros(len(y_B), 3, 28, 28).contiguous(memory_format=torch.channels_last))
            yield x_BD, y_B, index_B

    return costly


def time_lbfgs(train: Features, rounds: int) -> None:
    mean_D, std_D = standardization(train.x_ND)
    x_ND, y_N = (train.x_ND - mean_D) / std_D, train.labels_N
    cut = len(x_ND) * 4 // 5
    fit_nD, fit_y_n, rest_MD, rest_y_M = x_ND[:cut], y_N[:cut], x_ND[cut:], y_N[cut:]
    as_numpy = fit_nD.double().numpy(), fit_y_n.numpy(), rest_MD.double().numpy(), rest_y_M.numpy()
    classes, found = int(y_N.max()) + 1, {}

    def ours() -> None:
        theta_KE: Tensor | None = None
        found["ours"] = []
        for l2 in DEFAULT_L2:
            fit = fit_logistic(fit_nD, fit_y_n, classes=classes, l2=l2, start_KE=theta_KE)
            theta_KE = fit.theta_KE
            found["ours"].append(accuracy_percent(fit.logits(rest_MD), rest_y_M))

    def theirs(tolerance: float, name: str) -> Callable[[], None]:
        def run() -> None:
            found[name] = []
            for l2 in DEFAULT_L2:
                fit = LogisticRegression(C=1 / (len(fit_nD) * l2), tol=tolerance, max_iter=10000)
                fit.fit(as_numpy[0], as_numpy[1])
                found[name].append(100 * fit.score(as_numpy[2], as_numpy[3]))

        return run

    exact = theirs(1e-6, "exact")
    exact()  # the minimum, to compare accuracies with; its time is not used
    medians = interleaved({"ours": ours, "scikit-learn": theirs(1e-4, "scikit-learn")}, rounds)
    gaps = [abs(a - b) for a, b in zip(found["ours"], found["exact"])]
    report("largest difference of accuracy over ten L2, scikit-learn at its minimum", max(gaps), " points", 0.1, False)
    loose = [abs(a - b) for a, b in zip(found["scikit-learn"], found["exact"])]
    print(f"  scikit-learn at its default tolerance differs from its minimum by up to {max(loose):.2f} points")
    report("scikit-learn (default tolerance) / ours, ten L2", medians["scikit-learn"] / medians["ours"], "x", 5.0, True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("heads", "lbfgs", "all"), default="all")
    parser.add_argument("--features", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=10_000)
    given = parser.parse_args()
    train = stored_features(given.features, given.images) if given.features else drawn_features(given.images)
    print(f"{len(train.x_ND)} images, {train.x_ND.shape[1]} features, {torch.get_num_threads()} threads")
    if given.what in ("heads", "all"):
        time_heads(train, given.rounds)
    if given.what in ("lbfgs", "all"):
        time_lbfgs(train, given.rounds)


if __name__ == "__main__":
    main()
