"""A browser as display: a digit is drawn on the pad in headless Chromium, and read."""

import io
import os
import shutil
import sys

import numpy as np
import pytest
from conftest import start_script
from matplotlib.figure import Figure
from PIL import Image

import digit_recognition as dr

needs_browser = pytest.mark.skipif(
    not shutil.which("chromedriver") and not (sys.platform == "linux" and "CI" in os.environ),
    reason="no Chromium with ChromeDriver is installed",
)


@pytest.fixture
def browser():
    """Headless Chromium, driven by Selenium."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for word in ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"):
        options.add_argument(word)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    yield driver
    driver.quit()


@pytest.fixture
def address(network):
    """The address of a pad that the script shows in a browser."""
    surroundings = os.environ | {"MPLBACKEND": "webagg"}
    process = start_script("--draw", "--model", network, stderr=None, env=surroundings)
    for line in process.stdout:
        if "http://" in line:
            break
    yield line[line.index("http://") :].strip()
    process.kill()
    process.communicate()


@needs_browser
def test_a_1_drawn_in_a_browser_is_read(browser, address, model):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    browser.get(address)
    canvases = WebDriverWait(browser, 20).until(
        lambda driver: driver.find_elements(By.CSS_SELECTOR, "canvas")
    )

    def blue_columns(driver):
        """Where the page is as blue as the bars, in pixels from the left."""
        page = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert("RGB")
        blue = np.abs(np.asarray(page, int) - [0, 114, 178]).max(axis=2) < 3
        return np.flatnonzero(blue.sum(axis=0) > 20)

    assert blue_columns(browser).size == 0
    mouse = ActionChains(browser, duration=50).move_to_element_with_offset(canvases[-1], -250, -80)
    mouse.click_and_hold()
    for _ in range(8):
        mouse.move_by_offset(0, 20)
    mouse.release().perform()
    bar = WebDriverWait(browser, 20).until(lambda driver: [*blue_columns(driver)])
    axes = dr.Pad(Figure(figsize=(10, 5)), model).axes["bars"]
    place = axes.transAxes.inverted().transform(axes.transData.transform((1, 0)))[0]
    left, right = axes.get_position().intervalx
    canvas = canvases[-1].rect
    expected = canvas["x"] + canvas["width"] * (left + place * (right - left))
    assert abs(np.mean(bar) - expected) < 0.03 * canvas["width"]
