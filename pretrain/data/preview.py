"""python -m pretrain.data.preview CONFIG [section.key=value ...]: a contact sheet of what the model sees.

A PNG with a row per image: the original with the views' crops outlined, and the views with the parameters that were
drawn for them. The images are the first of the epoch, rendered by the code that training uses.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pretrain.config import AugmentationConfig, PretrainConfig
from pretrain.configio import find_config, load
from pretrain.errors import ConfigError
from pretrain.format import command

_COLOURS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:olive")


def contact_sheet(config: PretrainConfig, output: Path, *, images: int = 8, epoch: int = 0) -> None:
    """Write the PNG for the first ``images`` images of ``epoch``.

    Raises:
        FileNotFoundError, ValueError: the data set has not been written, or is damaged; says so.
    """
    from matplotlib import pyplot as plt

    plt.switch_backend("Agg")
    from pretrain.data.beton.format import read_table
    from pretrain.data.catalog import existing_beton
    from pretrain.data.renderer import Renderer, RenderSettings
    from pretrain.data.sampler import permutation, subset

    data, augmentation = config.data, config.augmentation
    table = read_table(existing_beton(data.dataset, data.directory, data.split))
    chosen = permutation(config.seed, epoch, subset(len(table), data.images))[:images]
    renderer, settings = Renderer(table, 1), RenderSettings.of(augmentation, config.seed)
    batch = renderer.augmented(chosen, settings, epoch)
    views = augmentation.number_of_views
    figure, axes_RC = plt.subplots(
        len(chosen), 1 + views, squeeze=False, figsize=(2.6 * (1 + views), 3.1 * len(chosen)), layout="constrained"
    )
    for row, index in enumerate(map(int, chosen)):
        drawn_V = renderer.drawn(index, settings, epoch)
        _show(axes_RC[row, 0], renderer.original(index), f"image {index}, label {int(batch.labels[row])}")
        for view in range(views):
            _outline(axes_RC[row, 0], drawn_V[view], _COLOURS[view])
            title = "\n".join(describe(drawn_V[view], augmentation, view))
            _show(axes_RC[row, 1 + view], batch.views[row, view].permute(1, 2, 0).numpy(), title, _COLOURS[view])
    _save(figure, output)
    plt.close(figure)


def describe(drawn: Any, augmentation: AugmentationConfig, view: int) -> list[str]:
    """The drawn parameters (`operations.DRAWN`) of a view in words, in the order in which they are applied."""
    from pretrain.data.kernels.operations import in_words

    return in_words(drawn, augmentation.for_view(view), augmentation.crop_size_px)


def _show(axes: Any, pixels: Any, title: str, colour: str = "black") -> None:
    axes.imshow(pixels, interpolation="nearest")
    axes.set_title(title, fontsize=7, color=colour, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])


def _outline(axes: Any, drawn: Any, colour: str) -> None:
    from matplotlib.patches import Rectangle

    corner = (drawn["left"] - 0.5, drawn["top"] - 0.5)
    axes.add_patch(Rectangle(corner, drawn["width"], drawn["height"], fill=False, edgecolor=colour, linewidth=1.5))


def _save(figure: Any, output: Path) -> None:
    from pretrain.rundir import whole_file

    with whole_file(output) as file:
        figure.savefig(file, format="png", dpi=110, bbox_inches="tight")


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    prog, text = command("data preview", "pretrain.data.preview"), __doc__.split("\n\n")[1]
    parser = argparse.ArgumentParser(prog=prog, description=text)
    parser.add_argument("config", type=Path, help="YAML file, see configs/pretrain/")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that replace the file's")
    parser.add_argument("--output", type=Path, default=Path("preview.png"), help="default: preview.png")
    parser.add_argument("--images", type=int, default=8, help="how many rows (default: 8)")
    parser.add_argument("--epoch", type=int, default=0, help="whose random numbers (default: 0)")
    given = parser.parse_intermixed_args(arguments)
    try:
        config = load(PretrainConfig, find_config("pretrain", given.config), given.overrides)
        contact_sheet(config, given.output, images=given.images, epoch=given.epoch)
    except (ConfigError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(given.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
