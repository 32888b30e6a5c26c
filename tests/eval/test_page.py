"""The page in a real browser: no errors, no requests, hover, sorting, themes, a phone and paper."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eval.report.build import build_report, page_of, write_report
from eval.report.content import make_report
from eval.report.records import collect_all
from tests.eval.rich_studies import add_evaluations, add_trouble, grid_study
from tests.eval.studies import quick_study

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not Path(CHROMIUM).is_file():
        reason = "no chromium; install Debian's package: apt-get install chromium"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = quick_study(tmp_path_factory.mktemp("study"))
    study.question("unfinished", [], title="A question without points")
    study.runs({"global_batch_size": 4096}, [None])
    return build_report(study.write())


@pytest.fixture(scope="module")
def rich_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages with everything on them: a study of many axes with trouble and all evaluations, and two studies."""
    grid = grid_study(tmp_path_factory.mktemp("grid"))
    add_trouble(grid)
    add_evaluations(grid, [point.name for point in grid.points[8:14]])
    grid.write(name="grid")
    others = [quick_study(tmp_path_factory.mktemp(name)).write(name=name) for name in ("one", "two")]
    return {name: page_without_files(*found) for name, found in (("grid", [grid.directory]), ("two", others))}


def page_without_files(*directories: Path) -> Path:
    report = make_report(*collect_all(directories))
    page = page_of(report)
    write_report(report, page, files=False)
    return page


# WCAG 2.1: the contrast of every text on the page with what lies behind it, as the browser has computed both.
CONTRAST = """() => {
  // "rgb(1, 2, 3)" counts to 255, what color-mix gives ("color(srgb 0.1 0.2 0.3)") to 1.
  const scale = text => text.startsWith("color(") ? 255 : 1;
  const parse = text => (text.match(/[\\d.]+/g) || []).map((part, i) => Number(part) * (i < 3 ? scale(text) : 1));
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = element => {
    for (let node = element; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const ratio = (a, b) => {
    const [x, y] = [light(a), light(b)].sort((p, q) => q - p);
    return (x + 0.05) / (y + 0.05);
  };
  const found = {};
  const note = (kind, element, colour) => {
    const value = ratio(parse(colour), behind(element));
    if (!(kind in found) || value < found[kind][0]) {
      found[kind] = [value, `${element.tagName}.${element.getAttribute("class")} ${element.textContent.slice(0, 30)}`];
    }
  };
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (["SCRIPT", "STYLE"].includes(element.tagName) || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    if (own) note("text", element, element.closest("svg") ? style.fill : style.color);
    const drawn = element.matches("svg .line, .curve, svg .bar, .missing, .ring") ? style.stroke
      : element.matches(".mark") ? style.fill : null;
    if (drawn) note("graphics", element, drawn);
  }
  return found;
}"""


class Opened:
    """A page, with what it complained of and what it asked the network for."""

    def __init__(self, browser: Any, file: Path, **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.file = file

    def check(self) -> None:
        assert self.complaints == []
        assert [url for url in self.requests if not url.startswith("data:")] == [self.file.as_uri()]
        self.page.close()


@pytest.mark.parametrize("width", [1280, 390, 320])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_opens_without_complaints_and_fits(browser: Any, page_file: Path, width: int, scheme: str) -> None:
    opened = Opened(browser, page_file, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = opened.page
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    single = page.locator("figure:not(.multiples) svg.panel.wide").count()
    assert single == 2
    assert page.locator("svg.panel.wide:visible").count() == (single if width > 640 else 0)
    assert page.locator("svg.panel.narrow:visible").count() == (0 if width > 640 else single)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(19, 21, 24)") == (scheme == "dark")
    opened.check()


@pytest.mark.parametrize("name", ["grid", "two"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(browser: Any, rich_files: dict[str, Path], name: str, scheme: str) -> None:
    opened = Opened(browser, rich_files[name], viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    opened.page.evaluate("document.querySelectorAll('details').forEach(element => { element.open = true; })")
    found = opened.page.evaluate(CONTRAST)
    assert found["text"][0] >= 4.5, found
    assert found["graphics"][0] >= 3.0, found
    opened.check()


@pytest.mark.parametrize("name", ["grid", "two"])
def test_everything_has_a_name_and_the_page_is_small(browser: Any, rich_files: dict[str, Path], name: str) -> None:
    assert rich_files[name].stat().st_size < 2_000_000
    opened = Opened(browser, rich_files[name], viewport={"width": 390, "height": 800})
    page = opened.page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("img:not([alt]), img[alt='']").count() == 0
    assert page.locator("svg[role=img]:not([aria-label]), figure[aria-label='']").count() == 0
    assert page.locator("svg:not([role=img]):not([aria-hidden])").count() == 0
    assert page.evaluate("[...document.querySelectorAll('button')].every(b => b.textContent.trim() || b.ariaLabel)")
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map(element => element.id)")
    assert len(ids) == len(set(ids))
    for target in page.evaluate("[...document.querySelectorAll('a[href^=\"#\"]')].map(link => link.hash.slice(1))"):
        assert target in ids
    levels = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert page.locator("html[lang=en]").count() == 1
    opened.check()


def test_two_studies_have_two_colours(browser: Any, rich_files: dict[str, Path]) -> None:
    opened = Opened(browser, rich_files["two"], viewport={"width": 1280, "height": 900})
    lines = opened.page.locator("#question-batch_size svg.wide .line")
    colours = [lines.nth(i).evaluate("line => getComputedStyle(line).stroke") for i in range(lines.count())]
    assert len(colours) == len(set(colours)) == 2
    opened.page.locator("#question-batch_size svg.wide circle[data-tip][tabindex]").nth(3).hover()
    assert opened.page.locator("#tip").text_content().startswith("two\n")
    assert opened.page.locator("#summary .legend li").all_text_contents() == ["one", "two"]
    opened.check()


def test_every_table_sorts(browser: Any, rich_files: dict[str, Path]) -> None:
    opened = Opened(browser, rich_files["grid"])
    button = opened.page.locator("#protocols table").first.locator("th button").nth(5)
    button.click()
    cells = opened.page.evaluate(
        "[...document.querySelector('#protocols tbody').rows].map(row => row.cells[5].textContent)"
    )
    numbers = [float(text.split()[0]) for text in cells if text != "–"]
    assert numbers == sorted(numbers)
    assert len(numbers) == 3
    assert cells[len(numbers) :] == ["–"] * (len(cells) - len(numbers)), "what is not known comes last"
    opened.check()


def test_best_learning_rates_are_ringed(browser: Any, rich_files: dict[str, Path]) -> None:
    opened = Opened(browser, rich_files["grid"], viewport={"width": 1280, "height": 900})
    section = opened.page.locator("#question-batch_size-base_learning_rate")
    assert section.locator(".grid .ring").count() == 9
    assert section.locator(".legend", has_text="best of its line").count() == 1
    assert opened.page.locator("#question-batch_size .missing").count() >= 1
    opened.check()


def test_theme_button(browser: Any, page_file: Path) -> None:
    opened = Opened(browser, page_file, color_scheme="dark")
    opened.page.click("#theme")
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(251, 251, 250)"
    opened.page.click("#theme")
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(19, 21, 24)"
    opened.check()


def test_hover_tells_values(browser: Any, page_file: Path) -> None:
    opened = Opened(browser, page_file, viewport={"width": 1280, "height": 900})
    page = opened.page
    page.locator("#question-batch_size svg.wide circle[data-tip][tabindex]").first.hover()
    assert "batch size = 64\n82.94" in page.locator("#tip").text_content()
    page.mouse.move(0, 0)
    assert page.locator("#tip").is_hidden()
    page.locator("#question-batch_size svg.wide circle[data-tip][tabindex]").nth(1).focus()
    assert "batch size = 256" in page.locator("#tip").text_content()
    page.keyboard.press("Escape")
    panel = page.locator("#training svg").first
    panel.scroll_into_view_if_needed()
    box = panel.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5)
    text = page.locator("#tip").text_content()
    assert text.startswith("Epoch 1")
    assert text.count("seed") == 3
    opened.check()


def test_table_sorts_numbers_as_numbers_and_unknown_last(browser: Any, page_file: Path) -> None:
    opened = Opened(browser, page_file)
    page = opened.page
    button = page.locator("table.runs th button", has_text="Top-1")
    button.click()
    cells = page.evaluate("[...document.querySelectorAll('table.runs tbody tr')].map(row => row.cells[2].textContent)")
    assert cells[-1] == "not started"
    assert [float(cell) for cell in cells[:-1]] == sorted(float(cell) for cell in cells[:-1])
    button.click()
    cells = page.evaluate("[...document.querySelectorAll('table.runs tbody tr')].map(row => row.cells[2].textContent)")
    assert cells[-1] == "not started"
    assert [float(cell) for cell in cells[:-1]] == sorted((float(cell) for cell in cells[:-1]), reverse=True)
    assert page.locator("table.runs th[aria-sort=descending]").count() == 1
    opened.check()


def test_prints(browser: Any, page_file: Path, tmp_path: Path) -> None:
    opened = Opened(browser, page_file, color_scheme="dark")
    opened.page.emulate_media(media="print")
    assert opened.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert opened.page.locator("#theme").is_hidden()
    opened.page.pdf(path=tmp_path / "report.pdf", format="A4")
    opened.check()
