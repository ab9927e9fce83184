"""Takes demo.png, a picture of the page of `diffsearch demo`, after training what it shows (see demo.yaml).

    pip install 'diffsearch[demo,test]'; python docs/pictures/demo.py

Needs chromium and chromedriver. A store where the study lies already may be named: `... demo.py .diffsearch`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.support import expected_conditions as until
from selenium.webdriver.support.ui import WebDriverWait

import diffsearch
from diffsearch.demo import page
from diffsearch.demo.networks import Networks

HERE = Path(__file__).parent
PORT = 7860
SIZE = 1090, 1490  # CSS pixels

study = diffsearch.load(HERE / "demo.yaml", store=sys.argv[1] if len(sys.argv) > 1 else None)
study.run()
served = page.serve(Networks(study.store, study.name), "127.0.0.1", PORT)
options = webdriver.ChromeOptions()
for flag in ("--headless", "--no-sandbox", "--hide-scrollbars", "--disable-background-networking"):
    options.add_argument(flag)
with webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver")) as browser:
    browser.set_window_size(*SIZE)
    browser.get(served.url)
    WebDriverWait(browser, 60).until(until.element_to_be_clickable(("id", "draw"))).click()
    WebDriverWait(browser, 60).until(until.visibility_of_element_located(("css selector", "#strip img")))
    WebDriverWait(browser, 60).until(until.invisibility_of_element_located(("css selector", "#said .progress-text")))
    browser.save_screenshot(str(HERE / "demo.png"))
