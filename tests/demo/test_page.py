"""The page in a real browser: what one clicks is drawn, what can't be is told in words, nothing comes from outside."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffsearch import exported
from diffsearch.demo.networks import Networks
from diffsearch.diffusion.guidance import one_hot
from diffsearch.records import RunHistory
from diffsearch.space.settings import Choice, SamplingPoint
from diffsearch.trial import png_grid
from tests.demo.conftest import LOST, of_loss
from tests.laboratory import Laboratory

PATIENCE_S = 120  # for one answer of the page, on a machine that has other things to do
FLAGS = ("--headless", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1200,1600")
# What Chromium would ask Google for by itself.
OFFLINE = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")


class Browser:
    """Headless Chromium on the page."""

    def __init__(self, binary: str, driver: str) -> None:
        from selenium import webdriver

        options = webdriver.ChromeOptions()
        options.binary_location = binary
        for flag in (*FLAGS, *OFFLINE):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))

    def find(self, css: str) -> Any:
        """The first such element that one can see, once it is there."""

        def seen() -> Any:
            found = self.driver.find_elements("css selector", css)
            return next((each for each in found if each.is_displayed()), None)

        return self.wait(seen, css)

    def click(self, css: str) -> None:
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", self.find(css))
        self.find(css).click()

    def read(self, css: str, pattern: str) -> str:
        """The text of an element, once it holds the pattern."""

        def holds() -> str | None:
            text = self.find(f"{css} .ds").text
            return text if re.search(pattern, text) else None

        return str(self.wait(holds, f"{css}: {pattern}"))

    def wait(self, until: Callable[[], Any], what: str) -> Any:
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.ui import WebDriverWait

        waiting = WebDriverWait(self.driver, PATIENCE_S, 0.05, [StaleElementReferenceException])
        return waiting.until(lambda _: until(), what)

    def tab(self, name: str) -> None:
        self.click_text("button[role=tab]", name)

    def choose(self, css: str, text: str) -> None:
        """Open a dropdown and take the entry that holds a text."""
        self.click(f"{css} input")
        self.click_text(f"{css} ul[role=listbox] li", text)

    def click_text(self, css: str, text: str) -> None:
        """Click the one of these elements that holds a text, once it is there."""

        def named() -> Any:
            found = self.driver.find_elements("css selector", css)
            return next((each for each in found if text in each.text), None)

        self.wait(named, f"{css} {text}").click()

    def begin(self, tab: str, run: RunHistory) -> None:
        """Turn to a tab, with a run chosen and its settings there."""
        self.tab(tab)
        if run.key[:6] not in self.find("#run input").get_attribute("value"):
            self.choose("#run", run.key[:6])
        self.read("#card", run.settings.training.loss)

    def requests(self) -> set[str]:
        """Every address that the page asked for."""
        said = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return {each["params"]["request"]["url"] for each in said if each["method"] == "Network.requestWillBeSent"}


@pytest.fixture(scope="module")
def served(laboratory: Laboratory) -> Iterator[subprocess.Popen[str]]:
    """`diffsearch demo tiny`, until its Ctrl-C."""
    pytest.importorskip("gradio", reason="gradio isn't installed: pip install 'diffsearch[demo]'")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-c", "from diffsearch.cli import main; main()"]
    words = ["demo", "tiny", "--store", str(laboratory.store.root), "--port", port]
    process = subprocess.Popen([*command, *words], stdout=subprocess.PIPE, text=True)
    try:
        yield process
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate()
        assert process.returncode == 0 and rest == ""
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def page(request: pytest.FixtureRequest) -> Iterator[Browser]:
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no chromium with its chromedriver: apt-get install chromium chromium-driver")
    pytest.importorskip("selenium", reason="selenium isn't installed: pip install 'diffsearch[test]'")
    served = request.getfixturevalue("served")
    browser = Browser(binary, driver)
    try:
        told = served.stdout.readline()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/   \(Ctrl-C ends it\)\n", told), told
        browser.driver.get(told.split()[0])
        yield browser
    finally:
        browser.driver.quit()


def picture(page: Browser, css: str) -> bytes:
    """The PNG of a picture in the page."""
    source = page.find(f"{css} img").get_attribute("src")
    return base64.b64decode(source.removeprefix("data:image/png;base64,"))


def painted(page: Browser, css: str) -> np.ndarray:
    """What the browser painted of it, grey."""
    return np.asarray(Image.open(io.BytesIO(page.find(f"{css} img").screenshot_as_png)).convert("L"))


def test_it_draws_what_the_run_draws_with_sharp_pixels(page: Browser, networks: Networks) -> None:
    (best,) = networks.drawable(1)
    page.begin("Draw", best)
    page.click("#draw")
    told = page.read("#said", r"in all")
    assert "32 images × 4 network calls each, 128 in all" in told and "70 samples, extractor" in told
    network, sheet = networks.read(best.key, 1, 0), networks.best(best)
    assert sheet is not None
    point = sheet.sampling
    images = exported.draw(network.denoiser, network.normalization, (1, 28, 28), point, 32, 0, network.device)
    assert picture(page, "#grid") == png_grid(images, 8)
    shown, drawn = painted(page, "#grid"), np.asarray(Image.open(io.BytesIO(png_grid(images, 8))).convert("L"))
    assert drawn.std() > 5
    factor = shown.shape[0] // drawn.shape[0]
    assert factor >= 2 and np.array_equal(shown, drawn.repeat(factor, 0).repeat(factor, 1))


def test_the_way_to_the_images_begins_in_noise(page: Browser, networks: Networks) -> None:
    from selenium.webdriver.common.keys import Keys

    page.begin("Draw", networks.drawable(1)[0])
    page.click("#draw")
    page.read("#grid", "^t = 0")
    for _ in range(4):
        page.find("#moment input[type=range]").send_keys(Keys.ARROW_LEFT)
    page.read("#grid", r"^t = 4$")
    assert painted(page, "#grid").std() > 60  # white noise, clipped
    assert page.read("#strip", "t = 0").split("\n")[1:] == [f"t = {t}" for t in (4, 3, 2, 1, 0)]


def test_two_runs_stand_side_by_side(page: Browser, networks: Networks) -> None:
    page.begin("Two runs", networks.drawable(1)[0])
    page.click("#draw-two")
    told = page.read("#two", "network call")
    assert all(run.key[:6] in told for run in networks.drawable(2))
    assert len(page.driver.find_elements("css selector", "#two img")) == 2


def test_a_run_without_a_checkpoint_is_refused_in_words(page: Browser, networks: Networks) -> None:
    lost = of_loss(networks, LOST)
    page.begin("Draw", lost)
    assert "by epochs: none" in page.read("#card", LOST)
    page.click("#draw")
    told = page.read("#said", "keeps no checkpoint")
    assert told == f"run {lost.key[:6]} keeps no checkpoint (finished): choose another run."
    _no_bug_is_shown(page)


def test_a_class_can_be_chosen_where_the_network_takes_one(page: Browser, networks: Networks) -> None:
    page.begin("Draw", of_loss(networks, "x0-l2"))
    page.wait(lambda: not page.driver.find_elements("css selector", "#class"), "no list of classes")
    run = of_loss(networks, "mu-tilde-l2")
    page.begin("Draw", run)
    page.choose("#class", "7")
    page.click("#draw")
    page.read("#said", "class 7")
    network, label = networks.read(run.key, 1, 0), one_hot(torch.full((32,), 7), 10)
    point = SamplingPoint(Choice("ancestral"), None, 0)
    given = (network.denoiser, network.normalization, (1, 28, 28), point, 32, 0, network.device, label)
    assert picture(page, "#grid") == png_grid(exported.draw(*given), 8)


def test_a_sampler_that_does_not_fit_is_refused_in_words(page: Browser, networks: Networks) -> None:
    page.begin("Draw", of_loss(networks, "mu-tilde-l2"))
    page.choose("#sampler", "ddim")
    page.click("#draw")
    assert "Use ancestral" in page.read("#said", "a mu-tilde network gives none")
    page.tab("Between two seeds")
    page.click("#draw-between")
    page.read("#said-between", "a mu-tilde network gives none")
    _no_bug_is_shown(page)


def test_between_two_seeds_on_a_narrow_window(page: Browser, networks: Networks) -> None:
    page.driver.set_window_size(500, 1000)
    page.begin("Between two seeds", of_loss(networks, "x0-l2"))
    page.click("#draw-between")
    page.read("#between", r"seed 0\s+seed 1")
    overflow = page.driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
    assert overflow <= 0
    with Image.open(io.BytesIO(picture(page, "#between"))) as grid:
        assert grid.size == (9 * 29 + 1, 4 * 29 + 1)


def test_nothing_is_asked_of_other_machines(page: Browser) -> None:
    asked, address = page.requests(), page.driver.current_url
    assert any(url.startswith(address) for url in asked)
    assert [url for url in asked if not url.startswith((address, "data:", "blob:", "chrome:"))] == []


def _no_bug_is_shown(page: Browser) -> None:
    """No traceback, none of gradio's error boxes, nothing in the browser's console."""
    assert "Traceback" not in page.driver.page_source
    assert page.driver.find_elements("css selector", ".toast-body.error") == []
    assert [entry for entry in page.driver.get_log("browser") if entry["level"] == "SEVERE"] == []
