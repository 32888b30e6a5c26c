"""What is odd about a data set, before anything is trained on it: ``python -m pretrain.data.check SOURCE``.

Sizes, modes, damage, classes; the same image twice, exactly or nearly, in one split or in training and test; and what
the writer will do with each image. As text, --json FILE, and --html FILE with a contact sheet of what is odd.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import io
import json
import sys
from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pretrain.data.buffers import usable_cores
from pretrain.data.sources.images import Images
from pretrain.data.sources.pixels import IN_WORDS, NOTHING, PixelPolicy, TooLarge, read_pixels
from pretrain.data.sources.registry import images_of
from pretrain.data.write_beton import add_source_arguments, opened_source, policy_of
from pretrain.format import command, plural
from pretrain.rundir import write_json, write_text

_SIDE = 64  # of the reduced image that statistics and near duplicates are taken from
_HASH_BITS, _BANDS = 3, 4  # hashes that differ in 3 bits agree in one of 4 bands
_LIKE = 0.1  # thumbnails of one picture, compressed or scaled otherwise, differ by less of their own spread
_BLANK = 4.0  # spread of the levels of a thumbnail below which there is nothing to see
_CROWD = 1000  # a band that more hashes share tells nothing: plain backgrounds
_TINY, _SLENDER = 16, 8  # px of a side, ratio of the sides
_SHOWN, _ON_PAGE = 8, 40  # of a list in print, groups on the page


@dataclass(frozen=True)
class Facts:
    """What is known of one image. thumbnail: 16 x 16 x 3; None where the image cannot be stored: ``why`` says it."""

    name: str
    split: str
    label: int
    size: tuple[int, int] = (0, 0)
    mode: str = ""
    treated: tuple[str, ...] = ()
    digest: bytes = b""
    difference_hash: int = 0
    mean: tuple[float, ...] = ()
    square: tuple[float, ...] = ()
    thumbnail: npt.NDArray[np.uint8] | None = None
    why: str = ""


@dataclass
class Report:
    """Findings on all splits; `asdict` of it is the JSON. folder: what names are relative to."""

    folder: str = ""
    images: dict[str, int] = field(default_factory=dict)
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    smallest: tuple[int, int] = (0, 0)
    largest: tuple[int, int] = (0, 0)
    median: tuple[int, int] = (0, 0)
    modes: dict[str, int] = field(default_factory=dict)
    treated: dict[str, int] = field(default_factory=dict)
    channel_mean: list[float] = field(default_factory=list)
    channel_spread: list[float] = field(default_factory=list)
    cannot_be_stored: dict[str, str] = field(default_factory=dict)
    odd_sizes: list[str] = field(default_factory=list)
    blank: list[str] = field(default_factory=list)
    same: list[list[str]] = field(default_factory=list)
    nearly_the_same: list[list[str]] = field(default_factory=list)
    in_several_splits: list[list[str]] = field(default_factory=list)
    in_several_classes: list[list[str]] = field(default_factory=list)

    def text(self) -> str:
        """For a terminal."""
        rows = [("images", ", ".join(f"{split} {count:,}" for split, count in self.images.items()))]
        for split, counts in self.classes.items():
            if counts:
                few, many = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
                rows.append((f"classes of {split}", f"{len(counts)}: {few} {counts[few]:,} to {many} {counts[many]:,}"))
        sizes = zip(("smallest", "median", "largest"), (self.smallest, self.median, self.largest), strict=True)
        rows.append(("sizes in px", ", ".join(f"{what} {size[0]} x {size[1]}" for what, size in sizes)))
        rows += [(what, _counted(counts)) for what, counts in (("modes", self.modes), ("stored", self.treated))]
        levels = zip(["red", "green", "blue"], self.channel_mean, self.channel_spread, strict=False)
        rows.append(("levels", ", ".join(f"{name} {mean:.0f} +- {spread:.0f}" for name, mean, spread in levels)))
        rows.append(("left out", _counted(self.left_out)))
        lines = [f"  {name:<22}{value}" for name, value in rows if value]
        for title, groups in self.findings().items():
            lines.append(f"  {title}: {_extent(groups)}")
            lines += [f"    {' = '.join(group)}" for group in groups[:_SHOWN]]
        return "\n".join(lines)

    def findings(self) -> dict[str, list[list[str]]]:
        """Groups of names by what is odd about them; what is not there is left out."""
        found = {
            "cannot be stored": [[f"{name}: {why}"] for name, why in self.cannot_be_stored.items()],
            "in several splits (what is learnt is tested)": self.in_several_splits,
            "in several classes": self.in_several_classes,
            "the same file": self.same,
            "nearly the same": self.nearly_the_same,
            f"under {_TINY} px, or {_SLENDER} times longer than wide": [[name] for name in self.odd_sizes],
            "of one colour": [[name] for name in self.blank],
        }
        return {title: groups for title, groups in found.items() if groups}


def facts_of(images: Images, split: str, index: int, policy: PixelPolicy) -> Facts:
    """What is known of image ``index``."""
    name, label = images.name(index), int(images.labels[index])
    try:
        if images.encoded is None:
            image, treated = Image.fromarray(images.pixels(index)), NOTHING
            content, size, mode = image.tobytes(), image.size, image.mode
        else:
            content = images.encoded(index)
            image, treated = read_pixels(content, policy, _SIDE, roughly=True)
            with Image.open(io.BytesIO(content)) as original:
                size, mode = original.size, original.mode
    except (ValueError, OSError) as error:
        return Facts(name, split, label, why=str(error), mode="too large" if isinstance(error, TooLarge) else "")
    pixels = np.asarray(image.resize((_SIDE, _SIDE)), np.float64)
    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), np.int64)
    bits = (grey[:, 1:] > grey[:, :-1]).reshape(-1)
    return Facts(
        name, split, label, size, mode,
        treated=tuple(words for kind, words in IN_WORDS.items() if treated & kind and "reduced" not in words),
        digest=hashlib.blake2b(content, digest_size=16).digest(),
        difference_hash=int.from_bytes(np.packbits(bits).tobytes(), "big"),
        mean=tuple(pixels.mean((0, 1))), square=tuple((pixels**2).mean((0, 1))),
        thumbnail=np.asarray(image.resize((16, 16), Image.Resampling.BOX)),
    )  # fmt: skip


def look_at(images: Images, split: str, policy: PixelPolicy, workers: int) -> Iterator[Facts]:
    """`facts_of` every image, in order."""
    with ThreadPoolExecutor(workers) as pool:
        for low in range(0, len(images), 1024):  # not all at once: the pool's queue has no bound
            block = range(low, min(low + 1024, len(images)))
            yield from pool.map(lambda index: facts_of(images, split, index, policy), block)


def summarise(folder: str, facts: Sequence[Facts], class_names: Mapping[str, Sequence[str]]) -> Report:
    """What the facts of all splits say together. folder: what names are relative to."""
    facts = [replace(one, name=one.name.removeprefix(f"{folder}/")) for one in facts]
    good = [one for one in facts if not one.why]
    report = Report(folder, dict(Counter(one.split for one in facts)))
    for split, names in class_names.items():
        counts = Counter(one.label for one in facts if one.split == split)
        report.classes[split] = {name: counts[k] for k, name in enumerate(names)}
    report.cannot_be_stored = {one.name: one.why for one in facts if one.why}
    if good:
        by_area = sorted((one.size for one in good), key=lambda size: size[0] * size[1])
        report.smallest, report.median, report.largest = by_area[0], by_area[len(by_area) // 2], by_area[-1]
        report.modes = dict(Counter(one.mode for one in good).most_common())
        report.treated = dict(Counter(words for one in good for words in one.treated).most_common())
        mean = np.mean([one.mean for one in good], axis=0)
        report.channel_mean = mean.round(2).tolist()
        report.channel_spread = np.sqrt(np.mean([one.square for one in good], axis=0) - mean**2).round(2).tolist()
    odd = (one for one in good if min(one.size) < _TINY or max(one.size) > _SLENDER * min(one.size))
    report.odd_sizes = [one.name for one in odd]
    report.blank = [one.name for one in good if one.thumbnail is not None and one.thumbnail.std() <= _BLANK]
    same = _groups(good, ((one.digest, k) for k, one in enumerate(good)))
    firsts = {group[0] for group in same} | (set(range(len(good))) - {k for group in same for k in group})
    near = _joined(len(good), _near_pairs(good, sorted(firsts)))
    report.same = [[good[k].name for k in group] for group in same]
    report.nearly_the_same = [[good[k].name for k in group] for group in near]
    either = _joined(len(good), [(group[0], k) for group in [*same, *near] for k in group[1:]])
    for group in either:
        names = [good[k].name for k in group]
        if len({good[k].split for k in group}) > 1:
            report.in_several_splits.append(names)
        if len({good[k].label for k in group}) > 1:
            report.in_several_classes.append(names)
    return report


def _groups(facts: Sequence[Facts], keyed: Iterable[tuple[Any, int]]) -> list[list[int]]:
    by_key: dict[Any, list[int]] = defaultdict(list)
    for key, index in keyed:
        by_key[key].append(index)
    return [group for group in by_key.values() if len(group) > 1]


def _near_pairs(facts: Sequence[Facts], candidates: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Pairs of images whose hashes and thumbnails hardly differ."""
    width = 64 // _BANDS
    for band in range(_BANDS):
        keys = ((facts[k].difference_hash >> (width * band) & (1 << width) - 1, k) for k in candidates)
        for group in _groups(facts, keys):
            for a, b in combinations(group if len(group) <= _CROWD else [], 2):
                if (facts[a].difference_hash ^ facts[b].difference_hash).bit_count() <= _HASH_BITS:
                    x, y = (np.asarray(facts[k].thumbnail, np.int64) for k in (a, b))
                    if np.abs(x - y).mean() <= _LIKE * x.std() + 0.5 and x.std() > _BLANK:
                        yield a, b


def _joined(count: int, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Groups of numbers below ``count`` that chains of pairs connect."""
    root = list(range(count))

    def find(k: int) -> int:
        while root[k] != k:
            root[k] = k = root[root[k]]
        return k

    for a, b in pairs:
        root[max(find(a), find(b))] = min(find(a), find(b))
    members = sorted({k for k in range(count) if root[k] != k} | {find(k) for k in range(count) if root[k] != k})
    return _groups((), ((find(k), k) for k in members))


_PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>body {{ font: 14px sans-serif; margin: 2em }} pre {{ white-space: pre-wrap }}
figure {{ display: inline-block; width: 160px; margin: 4px; font-size: 10px; overflow-wrap: anywhere }}</style>
<h1>{title}</h1><pre>{text}</pre>{sections}
"""


def contact_sheet(report: Report) -> str:
    """A page of what is odd, with small pictures of the files."""
    sections = []
    for name, groups in report.findings().items():
        sections.append(f"<h2>{html.escape(name)}: {_extent(groups)}</h2>")
        for group in groups[:_ON_PAGE]:
            pictures = (_picture(Path(report.folder), one) for one in group[:_SHOWN])
            sections.append(f"<div>{''.join(pictures)}</div>")
    title, text = html.escape(report.folder), html.escape(report.text())
    return _PAGE.format(title=title, text=text, sections="\n".join(sections))


def _picture(folder: Path, name: str) -> str:
    caption, buffer = f"<figcaption>{html.escape(name)}</figcaption>", io.BytesIO()
    try:
        image, _ = read_pixels((folder / name).read_bytes(), PixelPolicy(), 160, roughly=True)
    except (OSError, ValueError):
        return f"<figure>{caption}</figure>"
    image.save(buffer, "PNG")
    return f'<figure><img src="data:image/png;base64,{b64encode(buffer.getvalue()).decode()}">{caption}</figure>'


def _counted(counts: Mapping[str, int]) -> str:
    shown = ", ".join(f"{count:,} {name}" for name, count in islice(counts.items(), _SHOWN))
    return shown + (f" and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else "")


def _extent(groups: Sequence[Sequence[str]]) -> str:
    images = plural(sum(map(len, groups)), "image")
    return images if max(map(len, groups)) == 1 else f"{images} in {plural(len(groups), 'group')}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog=command("data check", "pretrain.data.check"), description=__doc__.split("\n")[0]
    )
    add_source_arguments(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="all findings, for a program")
    parser.add_argument("--html", type=Path, metavar="FILE", help="the findings with a contact sheet")
    given = parser.parse_intermixed_args(arguments)
    try:
        source, policy = opened_source(given), policy_of(given)
        facts: list[Facts] = []
        names, left_out = {}, Counter[str]()
        for split in given.splits or source.available():
            images = images_of(source, given.source, split)
            facts += look_at(images, split, policy, given.workers or usable_cores())
            names[split], left_out = images.class_names, left_out | Counter(images.left_out)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    report = summarise(str(given.source_dir or given.source), facts, names)
    report.left_out = dict(left_out)
    print(f"{report.folder}\n{report.text()}")
    if given.json:
        write_json(given.json, json.loads(json.dumps(asdict(report))))
    if given.html:
        write_text(given.html, contact_sheet(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
