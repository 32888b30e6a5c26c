"""A new augmentation: its settings, its file and one registration; nothing that was there before changes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np

from pretrain.config import PretrainConfig, run_fingerprint
from pretrain.data.beton.format import read_table
from pretrain.data.catalog import beton_path
from pretrain.data.renderer import Renderer, RenderSettings
from pretrain.data.sources.synthetic import synthetic
from pretrain.data.write_beton import Storage, write_split
from tests.additions.tree import Addition

POSTERIZE = '''"""Posterize: fewer levels in every channel."""

from typing import Any

import numpy as np

from pretrain.data.kernels.jit import exact, inner
from pretrain.data.kernels.operation import Operation, Stage, unit


@exact
def _draw(key: Any, height: int, width: int, settings: Any, drawn: Any) -> None:
    drawn.posterize = unit(key, 26) < settings.posterize_probability


@inner
def _posterize(levels_3P: Any, settings: Any, drawn: Any) -> None:
    if drawn.posterize:
        mask = np.uint8(256 - 2 ** (8 - int(settings.posterize_bits)))
        for channel in range(3):
            level_P = levels_3P[channel]
            for x in range(len(level_P)):
                level_P[x] = level_P[x] & mask


POSTERIZE = Operation(
    name="posterize",
    stage=Stage.FINISH,
    slots=(26,),
    configured=("posterize_probability", "posterize_bits"),
    drawn={"posterize": np.int64},
    draw=_draw,
    words=lambda drawn, view, side: "posterised" if drawn["posterize"] else "",
    on_levels=_posterize,
)
'''
IN_THE_COPY = """
import hashlib, json, sys
from pathlib import Path
import numpy as np
from pretrain.config import PretrainConfig, run_fingerprint
from pretrain.data.beton.format import read_table
from pretrain.data.preview import describe
from pretrain.data.renderer import RenderSettings, Renderer
renderer = Renderer(read_table(Path(sys.argv[1])), 1)
found = {}
for name, changes in (("off", {}), ("on", {"posterize_probability": 1.0, "posterize_bits": 2})):
    config = PretrainConfig.model_validate({"augmentation": {"crop_size_px": 32, **changes}})
    settings = RenderSettings.of(config.augmentation, 3)
    views = renderer.augmented(np.arange(16), settings, 1).views.numpy()
    found[name] = {
        "pixels": hashlib.sha256(views.tobytes()).hexdigest(),
        "fingerprint": run_fingerprint(config),
        "words": describe(renderer.drawn(0, settings, 1)[0], config.augmentation, 0),
        "levels": np.unique(views).tolist(),
    }
print(json.dumps(found))
"""


def test_three_files_and_no_other_pixel(tmp_path: Path) -> None:
    added = Addition(tmp_path)
    added.edit(
        "pretrain/config.py",
        "    invert_probability: Probability = 0.0  # of a negative\n",
        "    invert_probability: Probability = 0.0  # of a negative\n    posterize_probability: Probability = 0.0\n"
        "    posterize_bits: Annotated[int, Field(ge=1, le=8)] = 4\n",
    )
    later = '"augmentation.posterize_probability": 0.0, "augmentation.posterize_bits": 4,'
    added.edit(
        "pretrain/config.py", "_JOINED_LATER: dict[str, Any] = {\n", f"_JOINED_LATER: dict[str, Any] = {{{later}\n"
    )
    added.write("pretrain/data/kernels/posterize.py", POSTERIZE)
    added.edit(
        "pretrain/data/kernels/operations.py",
        "from pretrain.data.kernels.warp import",
        "from pretrain.data.kernels.posterize import POSTERIZE\nfrom pretrain.data.kernels.warp import",
    )
    added.edit("pretrain/data/kernels/operations.py", "    INVERT,\n)", "    INVERT,\n    POSTERIZE,\n)")
    assert len(added.touched) <= 3

    write_split(synthetic("train", 16), tmp_path, dataset="synthetic", split="train", storage=Storage("raw"))
    path = beton_path(tmp_path, "train")
    found = json.loads(added.python("-c", IN_THE_COPY, str(path), timeout_s=300))
    config = PretrainConfig.model_validate({"augmentation": {"crop_size_px": 32}})
    renderer, settings = Renderer(read_table(path), 1), RenderSettings.of(config.augmentation, 3)
    views = renderer.augmented(np.arange(16), settings, 1).views.numpy()
    off, on = found["off"], found["on"]
    assert off["pixels"] == hashlib.sha256(views.tobytes()).hexdigest() != on["pixels"]
    assert off["fingerprint"] == run_fingerprint(config) != on["fingerprint"]
    assert on["words"] == [*off["words"], "posterised"]  # what the others draw, and what it is called, is the same
    assert on["levels"] == [0, 64, 128, 192]
