"""A new source: its file and its registration; then it is written, planned, trained on and named like the others."""

from __future__ import annotations

from pathlib import Path

from tests.additions.tree import Addition

SOURCE = '''"""Images of one grey level each."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pretrain.data.sources.base import Source

if TYPE_CHECKING:
    from pretrain.data.sources.images import Images


class Plain(Source):
    """Level and class are the same."""

    label = "Plain images"
    splits = ("train",)
    images: ClassVar = {"train": 64}
    classes, side_px, stored_as = 8, 16, "raw"

    def open(self, split: str) -> Images:
        import numpy as np

        from pretrain.data.sources.images import Images

        labels = np.arange(64, dtype=np.int64) % 8
        names = tuple(f"level {k}" for k in range(8))
        return Images(labels, names, lambda index: np.full((16, 16, 3), labels[index], np.uint8))
'''
USED = """
import sys
sys.modules["torch"] = sys.modules["numpy"] = None
from pretrain.data.catalog import image_count
print(image_count("plain", "nowhere", "train"))
del sys.modules["torch"], sys.modules["numpy"]
from eval.report.format import named
print(named("plain"))
from pretrain.data.write_beton import main
assert main(["plain", sys.argv[1]]) == 0
from pathlib import Path
from pretrain.config import AugmentationConfig, DataConfig
from pretrain.data.loader import build_loader
data = DataConfig(dataset="plain", directory=Path(sys.argv[1]), loader="beton")
loader = build_loader(data, AugmentationConfig(crop_size_px=16), seed=0, global_batch_size=32)
print(loader.images)
"""


def test_two_files(tmp_path: Path) -> None:
    added = Addition(tmp_path)
    added.write("pretrain/data/sources/plain.py", SOURCE)
    registry = "pretrain/data/sources/registry.py"
    line = "from pretrain.data.sources.synthetic import Synthetic\n"
    added.edit(registry, line, f"from pretrain.data.sources.plain import Plain\n{line}")
    added.edit(registry, '    "synthetic": Synthetic,\n', '    "synthetic": Synthetic,\n    "plain": Plain,\n')
    assert len(added.touched) <= 2
    lines = added.python("-c", USED, str(tmp_path / "data")).splitlines()
    assert lines[:2] == ["64", "Plain images"]
    assert lines[-1] == "64"
