"""The pages that an evaluation and the example of a model's life write, on a phone and on a wall, in both themes."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from browser.chromium import blemishes, chromium, look, needs_chromium
from builders.evaluation import candidate, contexts, evaluation
from playwright.sync_api import Browser
from unit.examples.test_lifecycle_page import CHANGES, SAMPLES

from clipper_stream.evaluation.report import render_page
from examples.lifecycle.page import render_lifecycle

pytestmark = [pytest.mark.browser, needs_chromium, pytest.mark.timeout(300)]

NAMES = ("\u9867\u5ba2\u4e03", "\u0627\u0644\u0639\u0645\u064a\u0644", "\u0917\u094d\u0930\u093e\u0939\u0915", "user-7")
"""Contexts in Chinese, Arabic, Devanagari and Latin letters."""
SCRIPTS = [replace(one, context=name) for one, name in zip(contexts(), NAMES, strict=False)]
PAGES = {
    "evaluation": lambda: render_page(
        evaluation(candidate("exp3:eta=0.2", 0.08, contexts=SCRIPTS), candidate("svm:2", 0.11, kind="model"))
    ),
    "lifecycle": lambda: render_lifecycle(CHANGES, SAMPLES, "A model's life", "600 queries, 2 of them defaults."),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.mark.parametrize("name", PAGES)
def test_a_report_fits_a_phone_and_a_wall_and_is_dark_where_the_system_is(browser: Browser, name: str) -> None:
    page, backgrounds = browser.new_page(), []
    page.set_content(PAGES[name]())
    for theme, width in (("light", 360), ("dark", 360), ("light", 1024), ("dark", 2560)):
        look(page, theme, width)
        assert blemishes(page) == [], (theme, width)
        backgrounds.append(page.locator("section").first.evaluate("one => getComputedStyle(one).backgroundColor"))
    assert backgrounds[0] == backgrounds[2] != backgrounds[1] == backgrounds[3]
    page.close()
