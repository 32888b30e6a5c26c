"""`bigbatch new NAME`: a study file for one's own data, filled in from what the data set's manifest says."""

from __future__ import annotations

import sys
from pathlib import Path

from pretrain.data.catalog import Manifest, read_manifest
from pretrain.errors import did_you_mean
from pretrain.rundir import write_text

SMALL_PX, LARGE_PX = 32, 224
FEWEST_BATCHES = 8  # of an epoch, below which a larger batch says little

BASE = """# One pretraining run on {data}; every setting: bigbatch settings
global_batch_size: {batch}
epochs: {epochs}
data:
  dataset: {dataset}
  directory: {data}
augmentation:
  crop_size_px: {crop}{small_images}
encoder:
  architecture: resnet18
  stem: {stem}  # {stem_why}
objective:
  name: simclr  # or dcl, barlow_twins, vicreg, wmse, byol, simsiam
  temperature: 0.2
optimizer:
  name: lars
  weight_decay: 1.0e-6
schedule:
  scaling: sqrt  # learning rate = base x sqrt(batch); linear: base x batch / 256
  base_learning_rate: 0.075
  warmup_epochs: {warmup}
"""
SMALL_IMAGES = """
  # SimCLR's recipe for small images: half the colour strength, no blur.
  brightness: 0.4
  contrast: 0.4
  saturation: 0.4
  hue: 0.1
  blur_probability: 0.0"""
STUDY = """# What the batch size and the number of negatives do on {data}.
#   bigbatch plan {file}       what it would do
#   bigbatch study {file}      do it; started again, it does only what is missing
name: {name}
base: {name}_run.yaml
seeds: [0, 1, 2]  # at least three: the scatter of seeds is what a difference is measured against
# target: slurm   (see `bigbatch settings study`)
questions:
  - name: batch_size
    grid: {{global_batch_size: {batches}}}
  - name: negatives  # at one batch size, so that nothing else changes
    x: negatives_per_anchor
    grid: {{objective.negatives: {negatives}}}
baselines:
  - name: random
    title: Random encoder
    set: {{epochs: 0, schedule.warmup_epochs: 0}}
probes:
  - task: {probe}  # {probe_why}
"""


def write_new_study(name: str, data: Path | None, into: Path) -> int:
    """Write NAME.yaml and NAME_run.yaml; returns the exit status. data: what `bigbatch data write` made."""
    study, base = into / f"{name}.yaml", into / f"{name}_run.yaml"
    there = [str(path) for path in (study, base) if path.exists()]
    if there:
        print(f"{', '.join(there)}: already there; expected another NAME", file=sys.stderr)
        return 2
    manifest = None
    if data is not None:
        try:
            manifest = read_manifest(data, "train")
        except (FileNotFoundError, ValueError) as error:
            others = sorted(path.stem for path in data.glob("*.beton")) if data.is_dir() else []
            print(f"{error}{did_you_mean('train', others)}", file=sys.stderr)
            return 2
    values = _values(name, study, data, manifest)
    write_text(base, BASE.format(**values))
    write_text(study, STUDY.format(**values))
    print(f"wrote {study} and {base}\nnext: bigbatch plan {study}, then bigbatch study {study}")
    return 0


def _values(name: str, study: Path, data: Path | None, manifest: Manifest | None) -> dict[str, object]:
    """What the data decides: sizes that fit its number of images, a crop that fits their side."""
    images = manifest.images if manifest is not None else 50_000
    side = (manifest.side_px or LARGE_PX) if manifest is not None else SMALL_PX
    largest = max(4, 2 ** ((images // FEWEST_BATCHES).bit_length() - 1))
    batch = min(256, largest)
    small = side <= 96
    labels = manifest is None or manifest.classes > 1
    return {
        "name": name,
        "file": study,
        "data": data or "data/mine",
        "dataset": manifest.dataset if manifest is not None else "imagefolder",
        "batch": batch,
        "epochs": 20 if images > 20_000 else 100,
        "warmup": 2 if images > 20_000 else 10,
        "crop": min(side, LARGE_PX),
        "small_images": SMALL_IMAGES if small else "",
        "stem": "small" if side <= 64 else "imagenet",
        "stem_why": "3x3 and no pooling, for images up to 64 pixels" if side <= 64 else "7x7 and pooling",
        "batches": [size for size in (batch // 4, batch, batch * 4) if 2 <= size <= max(largest, batch)],
        "negatives": [n for n in (2, 8, 32, batch) if n <= batch and batch % n == 0],
        "probe": "linear" if labels else "tsne",
        "probe_why": "logistic regression on frozen features" if labels else "needs no labels",
    }
