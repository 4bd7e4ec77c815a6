"""A browser as display: a digit is drawn on the pad in headless Chromium, and read."""

import os
import shutil
import sys

import pytest
from conftest import start_script

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
def address(tmp_path, network):
    """The address of a pad that the script shows in a browser; what it saves is in tmp_path."""
    (tmp_path / "matplotlibrc").write_text("webagg.open_in_browser: False\n")
    surroundings = os.environ | {"MPLBACKEND": "webagg", "MATPLOTLIBRC": str(tmp_path)}
    words = ["--draw", "--model", network, "--output-dir", tmp_path]
    process = start_script(*words, stderr=None, env=surroundings)
    for line in process.stdout:
        if "http://" in line:
            break
    yield line[line.index("http://") :].strip(), process
    process.kill()
    process.communicate()


@needs_browser
def test_a_digit_drawn_in_a_browser_is_saved_and_read(browser, address, tmp_path, network):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.wait import WebDriverWait

    url, process = address
    browser.get(url)
    canvases = WebDriverWait(browser, 20).until(
        lambda driver: driver.find_elements(By.CSS_SELECTOR, "canvas")
    )
    mouse = ActionChains(browser, duration=50).move_to_element_with_offset(canvases[-1], -250, -80)
    mouse.click_and_hold()
    for _ in range(8):
        mouse.move_by_offset(0, 20)
    mouse.release().send_keys("s").perform()
    for line in process.stdout:
        if line.startswith("Saved "):
            break
    model = dr.load_model(network)
    (drawing,) = tmp_path.glob("drawing-*.png")
    assert dr.row_texts(dr.read_digits(drawing, model).rows) == ["1"]
