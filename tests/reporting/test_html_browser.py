"""The HTML report in a real browser: it renders without errors, and works by keyboard and at phone width."""

from __future__ import annotations

import base64
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autoprune.reporting import Page, save_page
from tests.reporting.test_html_page import FACTS, HOSTILE, full_page, searched

webdriver = pytest.importorskip("selenium.webdriver")
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="chromium and chromium-driver are missing"),
]


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield made
    made.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_page(full_page(searched(60)), tmp_path_factory.mktemp("page") / "report.html").as_uri()


def resize(driver: Any, width: int, *, scheme: str = "light") -> None:
    size = {"width": width, "height": 850, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})


def press(driver: Any, *keys: str) -> None:
    webdriver.ActionChains(driver).send_keys(*keys).perform()


def test_it_renders_without_a_message_and_reads_no_other_file(driver: Any, page: str) -> None:
    resize(driver, 1280)
    driver.get(page)
    assert driver.get_log("browser") == []
    assert driver.execute_script("return performance.getEntriesByType('resource').length") == 0
    width, height = driver.execute_script(
        "const box = document.querySelector('#trials .plot circle.m').getBoundingClientRect();"
        "return [box.width, box.height]"
    )
    assert width == height == pytest.approx(8, abs=1)


@pytest.mark.parametrize("names", ["usual", "hostile"])
def test_it_fits_a_phone_without_scrolling_sideways(
    driver: Any, page: str, names: str, tmp_path: Path
) -> None:
    if names == "hostile":
        long = HOSTILE * 10
        summary = searched(20)
        best = dataclasses.replace(summary.records[7], widths={long: 3}, origin=long)
        summary = dataclasses.replace(summary, study=long, metric=long, best=best, dense_widths={long: 9})
        hostile = Page(
            summary, FACTS, identity={long: long}, settings=long, commands={long: long}, next_step=long
        )
        page = save_page(hostile, tmp_path / "report.html").as_uri()
    resize(driver, 390)
    driver.get(page)
    for details in driver.find_elements("css selector", "details"):
        driver.execute_script("arguments[0].open = true", details)
    assert driver.execute_script("return document.documentElement.scrollWidth") == 390
    assert driver.get_log("browser") == []


def test_rows_stay_flat_on_a_phone(driver: Any, tmp_path: Path) -> None:
    summary = searched(20)
    best = summary.records[7]
    changed = dataclasses.replace(best, origin="uniform at 70% of the budget")
    records = tuple(changed if each is best else each for each in summary.records)
    page = save_page(full_page(dataclasses.replace(summary, records=records)), tmp_path / "report.html")
    resize(driver, 390)
    driver.get(page.as_uri())
    rows = "return [...document.querySelectorAll('#trials tbody tr')].map(each => each.offsetHeight)"
    assert 0 < max(driver.execute_script(rows)) < 65, "at most two lines"


def test_charts_are_read_by_the_keyboard(driver: Any, page: str) -> None:
    from selenium.webdriver.common.keys import Keys

    resize(driver, 1280)
    driver.get(page)
    names = []
    for _ in range(80):
        press(driver, Keys.TAB)
        focused = driver.switch_to.active_element
        names.append(focused.accessible_name)
        if names[-1].startswith("Scores in the order of the trials."):
            break
    else:
        pytest.fail(f"the chart is not reached: {names}")
    assert "" not in names
    press(driver, Keys.ARROW_RIGHT)
    tip = driver.find_element("id", "tip")
    assert tip.text.startswith("Trial 0: ")
    assert tip.get_attribute("role") == "status"
    press(driver, Keys.END)
    assert tip.text.startswith("Trial 59")
    lit = driver.execute_script("return document.querySelectorAll('[data-t=\"59\"].lit').length")
    assert lit > 1  # in the chart and in the table
    press(driver, Keys.ESCAPE)
    assert not tip.is_displayed()


def test_whatever_can_be_focused_has_a_name(driver: Any, page: str) -> None:
    driver.get(page)
    nodes = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = {
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if any(each["name"] == "focusable" and each["value"]["value"] for each in node.get("properties", ()))
    }
    assert len(named) > 20
    assert [role for role, name in named if not name and role != "code"] == []
    headings = [node for node in nodes if node.get("role", {}).get("value") == "heading"]
    assert headings


def contrast(driver: Any, selector: str) -> float:
    """Return the contrast of a text with the page, by the definition of WCAG 2."""
    colours = driver.execute_script(
        "const style = getComputedStyle(document.querySelector(arguments[0]));"
        "return [style.color, getComputedStyle(document.body).backgroundColor]",
        selector,
    )
    lights = []
    for colour in colours:
        parts = [int(each) / 255 for each in colour.removeprefix("rgb(").rstrip(")").split(",")]
        red, green, blue = (
            each / 12.92 if each <= 0.03928 else ((each + 0.055) / 1.055) ** 2.4 for each in parts
        )
        lights.append(0.2126 * red + 0.7152 * green + 0.0722 * blue)
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_both_looks_are_legible_and_the_switch_chooses_between_them(driver: Any, page: str) -> None:
    grounds = []
    for scheme in ("light", "dark"):
        resize(driver, 1280, scheme=scheme)
        driver.get(page)
        driver.execute_script("localStorage.clear()")
        driver.get(page)
        grounds.append(driver.execute_script("return getComputedStyle(document.body).backgroundColor"))
        assert contrast(driver, "h1") > 7
        for text in (".aid", "thead th", ".yes, .no", "#trials .aid", "nav a"):
            assert contrast(driver, text) > 4.5, text
    assert grounds[0] != grounds[1]
    switch = driver.find_element("id", "theme")
    switch.click()
    assert switch.text == "Theme: light"
    assert driver.execute_script("return getComputedStyle(document.body).backgroundColor") == grounds[0]
    driver.refresh()
    assert driver.find_element("id", "theme").text == "Theme: light"
    driver.execute_script("localStorage.clear()")


def test_trials_are_sorted_and_all_shown_on_request(driver: Any, page: str) -> None:
    resize(driver, 1280)
    driver.get(page)

    def shown() -> list[int]:
        rows = driver.find_elements("css selector", "#trials table.sortable tbody tr th")
        return [int(row.text) for row in rows if row.is_displayed()]

    assert len(shown()) == 12
    header = driver.find_element("css selector", "#trials table.sortable thead button")
    driver.execute_script("arguments[0].click()", header)
    assert shown() == list(range(59, 47, -1))
    driver.execute_script("arguments[0].click()", header)
    assert shown() == list(range(12))
    driver.execute_script("document.querySelector('.all').click()")
    assert shown() == list(range(60))


def test_it_prints_with_all_of_its_parts_open(driver: Any, page: str) -> None:
    driver.get(page)
    pdf = base64.b64decode(driver.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF")
    assert driver.execute_script("return document.querySelectorAll('details:not([open])').length") == 0


def test_a_thousand_trials_load_in_two_seconds_of_the_processor(driver: Any, tmp_path: Path) -> None:
    """In seconds of the main thread, which other processes of a busy machine do not lengthen."""
    path = save_page(full_page(searched(1000)), tmp_path / "report.html")
    resize(driver, 1280)
    driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    driver.get(path.as_uri())
    metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    (taken,) = [each["value"] for each in metrics if each["name"] == "TaskDuration"]
    assert taken < 2
