"""Which splits can measure an encoder: with labels where a classifier needs them, and never images that it has seen."""

from __future__ import annotations

from pathlib import Path

from eval.result import EvaluationError
from pretrain.config import PretrainConfig
from pretrain.data.catalog import Manifest, beton_path, manifest_path, read_manifest

WITHOUT_LABELS = "measures without labels (alignment, uniformity, RankMe, effective rank): bigbatch eval tsne RUN_DIR"


def check_splits(run: PretrainConfig, directory: Path, test_split: str, *train_splits: str) -> None:
    """Nothing, where a classifier can learn from ``train_splits`` and be tested on ``test_split`` of ``directory``.

    run: what trained the encoder, on images without which it is to be tested too (none, if for 0 epochs).
    Raises EvaluationError where a split has no labels, where the test split is not there, or where it holds the images
    of another of these splits, by whatever name. A file without a manifest tells nothing, and is let pass.
    """
    known = _manifests(directory)
    if known and test_split not in known and not beton_path(directory, test_split).is_file():
        splits = ", ".join(known)
        raise EvaluationError(
            f"{directory} has no split '{test_split}': expected test_split= one of {splits}, another than the training "
            f"images; or {WITHOUT_LABELS}"
        )
    for split in (test_split, *train_splits):
        if split in known and known[split].classes == 0:
            labelled = [name for name, manifest in known.items() if manifest.classes]
            instead = f"another split ({', '.join(labelled)} have labels), or " if labelled else ""
            raise EvaluationError(
                f"{directory} has no labels in its split '{split}': expected {instead}{WITHOUT_LABELS}"
            )
    if test_split not in known:
        return
    others = [(f"split '{split}' that a classifier learns from", known.get(split)) for split in train_splits]
    if run.epochs:
        seen = _manifests(run.data.directory).get(run.data.split)
        others.append((f"split '{run.data.split}' that the encoder was trained on", seen))
    for name, other in others:
        if other is not None and _same_images(other, known[test_split]):
            raise EvaluationError(
                f"test_split: got '{test_split}', which holds the same images as the {name}: expected images that "
                "nothing has been trained on"
            )


def present_split(directory: Path, wanted: str, otherwise: str) -> str:
    """``wanted`` where ``directory`` has it, else ``otherwise``."""
    return wanted if beton_path(directory, wanted).is_file() else otherwise


def _manifests(directory: Path) -> dict[str, Manifest]:
    names = sorted(path.stem for path in directory.glob("*.beton") if manifest_path(directory, path.stem).is_file())
    return {name: read_manifest(directory, name) for name in names}


def _same_images(one: Manifest, other: Manifest) -> bool:
    """Whatever they are called and however they are labelled; a file without a checksum cannot tell."""
    one_payload, other_payload = (manifest.blocks_crc32 or manifest.payload_crc32 for manifest in (one, other))
    return one_payload is not None and one_payload == other_payload and one.images == other.images
