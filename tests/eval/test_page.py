"""The page in a real browser: no errors, no requests, hover, sorting, themes, a phone and paper."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eval.report.build import build_report
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
    assert page.locator("svg.panel.wide:visible").count() == (2 if width > 640 else 0)
    assert page.locator("svg.panel.narrow:visible").count() == (0 if width > 640 else 2)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(19, 21, 24)") == (scheme == "dark")
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
