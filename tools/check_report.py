"""Check a report of maediff in a headless Chromium.

    python tools/check_report.py RESULTS/report.html --axe axe.min.js --pictures FOLDER

The script checks console, network, size and CPU time to open, and print to PDF; width and
accessibility at 390 and 1400 px, in light and dark mode; sorting and filtering of an index. With
viewers, it checks mouse, keyboard and touch in the first viewer that has a region, or else in the
first one.
It needs selenium, Chromium and its driver. axe-core is the file `axe.min.js` of the npm package of
this name. Without axe-core, the script does not check accessibility.
"""

import argparse
import base64
import hashlib
import json
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
)
SIZES = (390, 1400)
PAPER = 720
"""Width of a page of paper (A4) without its margins, in pixels."""
MODES = ("light", "dark")
MAX_MB = 5.0
"""Largest report of one scan; a session has a scan for each contrast."""
MAX_OPEN_S = 2.0
"""Largest CPU time of the page's main thread until the page is loaded."""
SERIOUS = ("serious", "critical")
CENTRE_COLUMN = 5
"""Cell of a region's row with its centre in mm of the scan, counted from 1 after the heading."""
LATER_ROWS = "table.sortable tbody tr:nth-child(n + 31)"
"""Rows that axe-core skips. They are like the first ones, and hundreds take minutes."""
SLIDERS_OF_IMAGE = ("low", "high")
SLIDERS = ("opacity", "threshold", *SLIDERS_OF_IMAGE)
"""Sliders; without a region, the map may be 0 everywhere, and only those of the image count."""
FIND_VIEWER = """
const ids = [...document.querySelectorAll('.viewer')].map((viewer) => viewer.id);
const info = (id) => JSON.parse(document.getElementById(`${id}-info`).textContent);
return ids.find((id) => info(id).regions.length) || ids[0];
"""
COUNT = """
const parts = [...document.querySelectorAll('.viewer')].map((viewer) => viewer.id + '-info');
const infos = parts.map((id) => JSON.parse(document.getElementById(id).textContent));
const scans = infos.map(({ ranges }) => 1 + Object.keys(ranges || {}).length);
return [infos.length, scans.reduce((n, m) => n + m, 0)];
"""
CUT_OFF = """
const all = [...document.querySelectorAll('.scroll, pre')];
const cut = all.filter((part) => part.scrollWidth > part.clientWidth + 1);
return cut.map((part) => part.textContent.trim().slice(0, 60));
"""
STRETCH = """
const all = document.querySelectorAll(`#${arguments[0]} canvas:not([hidden])`);
const shown = [...all].find((c) => c.offsetParent && !c.closest('.colours'));
return (shown.clientWidth / shown.clientHeight) / (shown.width / shown.height);
"""
HASH = """
const all = document.querySelectorAll(`#${arguments[0]} canvas`);
return [...all].filter((c) => c.offsetParent).map((c) => c.toDataURL()).join();
"""
SET = """
const input = document.querySelector(`#${arguments[2]} [name=${arguments[0]}]`);
if (input.type === 'checkbox') input.click();
else {
  input.value = arguments[1];
  input.dispatchEvent(new Event(input.tagName === 'SELECT' ? 'change' : 'input'));
}
"""
COLUMN = """
return [...document.querySelectorAll('table.sortable tbody tr')]
  .filter((row) => !row.hidden).map((row) => row.cells[arguments[0]].textContent.trim());
"""


class ReportCheck:
    """A page in a browser, and the problems that were found in it.

    Args:
        page: the HTML file.
        axe: axe.min.js of axe-core; None skips accessibility.
        pictures: folder for pictures of the page; None writes none.
    """

    def __init__(self, page: Path, axe: Path | None = None, pictures: Path | None = None) -> None:
        self.page, self.axe, self.pictures = page.resolve(), axe, pictures
        self.problems: list[str] = []
        self.viewer = ""
        """Identifier of the viewer that is checked."""
        self.browser = open_browser()

    def close(self) -> None:
        """Close the browser."""
        self.browser.quit()

    def require(self, holds: bool, problem: str) -> None:
        """Note a problem unless a condition holds."""
        if not holds:
            self.problems.append(problem)

    def run(self) -> list[str]:
        """Check everything, and return the problems."""
        try:
            self.open()
            self.check_size_and_time()
            if self.browser.find_elements("css selector", ".viewer-box"):
                self.wait_for_viewer()
                for check in (
                    self.check_numbers,
                    self.check_controls,
                    self.check_mouse,
                    self.check_keyboard,
                    self.check_touch,
                ):
                    check()
            if self.browser.find_elements("css selector", "table.sortable"):
                self.check_index()
            for width in SIZES:
                for mode in MODES:
                    self.check_look(width, mode)
            self.check_print()
            self.check_console_and_network()
        finally:
            self.close()
        return self.problems

    def open(self, width: int = 1400, mode: str = "light") -> None:
        """Load the page at a width and in a colour mode."""
        self.emulate(width, mode)
        self.browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        self.browser.get(self.page.as_uri())

    def emulate(self, width: int, mode: str) -> None:
        """Set width and colour mode."""
        metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 600}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": mode}]
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def pixels(self) -> str:
        """Return a hash of all visible canvases of the viewer."""
        data = self.browser.execute_script(HASH, self.viewer)
        return hashlib.sha256(data.encode()).hexdigest()

    def find(self, selector: str) -> Any:
        """Return the first element of the viewer with a CSS selector."""
        return self.browser.find_element("css selector", f"#{self.viewer} {selector}")

    def readout(self) -> str:
        """Return the text below the viewer."""
        return str(self.find(".readout").text)

    def set(self, name: str, value: Any = None) -> None:
        """Set a control of the viewer as a user does."""
        self.browser.execute_script(SET, name, value, self.viewer)

    def wait_for_viewer(self) -> None:
        """Choose the viewer to check, and wait until it is shown."""
        self.viewer = str(self.browser.execute_script(FIND_VIEWER))
        box = self.browser.find_element("css selector", f".viewer-box:has(#{self.viewer})")
        self.bring_into_view(box)
        shown = "return !document.getElementById(arguments[0]).hidden"
        if not wait(lambda: bool(self.browser.execute_script(shown, self.viewer))):
            raise TimeoutError(f"{self.page}: the viewer did not appear")

    def check_size_and_time(self) -> None:
        """Check size and time to open."""
        n_viewers, n_scans = self.browser.execute_script(COUNT)
        megabytes = self.page.stat().st_size / 1e6
        print(f"size {megabytes:.2f} MB, {n_scans} scans in {n_viewers} viewers")
        is_small = megabytes < MAX_MB * n_scans
        self.require(n_viewers != 1 or is_small, f"page of {n_scans} scans: {megabytes:.1f} MB")
        milliseconds = self.browser.execute_script(
            "const t = performance.getEntriesByType('navigation')[0]; return t.loadEventEnd"
        )
        measured = self.browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        seconds = {metric["name"]: metric["value"] for metric in measured}["TaskDuration"]
        print(f"opened in {milliseconds / 1000:.2f} s, {seconds:.2f} s of CPU time")
        self.require(seconds < MAX_OPEN_S, f"opening takes {seconds:.1f} s of CPU time")

    def check_numbers(self) -> None:
        """Check that no number below or beside the viewer has an exponent."""
        text = self.browser.find_element("id", self.viewer).text
        self.require(not re.search(r"\de[+-]\d", text), f"a number with an exponent: {text}")

    def check_controls(self) -> None:
        """Check that each control changes the pixels and that Reset restores them."""
        before = self.pixels()
        regions = bool(self.region_buttons())
        shown = ("map", "mask", "base", "cross") if regions else ("base", "cross")
        for name in (*(SLIDERS if regions else SLIDERS_OF_IMAGE), *shown):
            value = "reference" if name == "base" else None
            if name in SLIDERS:
                value = self.browser.execute_script(
                    "const s = document.querySelector(`#${arguments[1]} [name=${arguments[0]}]`);"
                    "const middle = (Number(s.min) + Number(s.max)) / 2;"
                    "return Math.abs(middle - s.value) > (s.max - s.min) / 10 ? middle : s.max;",
                    name,
                    self.viewer,
                )
            self.set(name, value)
            self.require(self.pixels() != before, f"control {name}: no pixel changed")
            self.find(".controls button").click()
            self.require(self.pixels() == before, f"control {name}: Reset left changed pixels")
        self.set("base", "swipe")
        swipe = self.pixels()
        self.set("swipe", 0.1)
        self.require(self.pixels() != swipe, "swipe: no pixel changed")
        for view in ("Sagittal", "Coronal", "Axial", "mosaic"):
            self.set("view", view)
            stretched = float(self.browser.execute_script(STRETCH, self.viewer))
            self.require(abs(stretched - 1) < 0.02, f"{view}: stretched {stretched:.2f} times")
        self.require(self.find("canvas.mosaic").is_displayed(), "no mosaic")
        before = self.pixels()
        self.set("side", "right")
        self.require(self.pixels() != before, "left and right: no pixel changed")
        self.set("side", "left")
        self.find(".controls button").click()
        rows = len(self.region_buttons())
        if rows:
            self.set("threshold", self.find("[name=threshold]").get_attribute("max"))
            self.require(len(self.region_buttons()) < rows, "regions ignore the threshold")
            self.find(".controls button").click()

    def bring_into_view(self, element: Any) -> None:
        """Scroll to an element at once; during a smooth scroll, a click would miss it."""
        place = "{block: 'center', behavior: 'instant'}"
        self.browser.execute_script(f"arguments[0].scrollIntoView({place})", element)

    def region_buttons(self) -> list[Any]:
        """Return the buttons of the viewer's table of regions."""
        return list(
            self.browser.find_elements("css selector", f"#{self.viewer}-regions tbody .jump")
        )

    def check_mouse(self) -> None:
        """Check that a click moves the crosshair, and that a region moves it to its centre."""
        from selenium.webdriver import ActionChains

        canvas = self.find(".planes canvas")
        before = self.readout()
        self.bring_into_view(canvas)
        off_centre = ActionChains(self.browser).move_to_element_with_offset(canvas, 20, 20)
        off_centre.click().perform()
        self.require(self.readout() != before, "a click on a plane left the crosshair")
        for button in self.region_buttons()[:1]:
            self.bring_into_view(button)
            button.click()
            text = button.find_element("xpath", f"./ancestor::tr/td[{CENTRE_COLUMN}]").text
            wanted = [float(value) for value in text.split(",")]
            shown = self.readout().partition(":")[2].partition(" mm")[0].split(",")
            distance = max(abs(float(a) - b) for a, b in zip(shown, wanted, strict=True))
            self.require(distance <= 2, f"region at {text}, but the crosshair is at {shown}")

    def check_keyboard(self) -> None:
        """Check that the viewer is reached and moved with the keyboard alone."""
        canvas = self.find(".planes canvas")
        for key in ("\ue012", "\ue013", "\ue00e"):  # left, up, page up
            before = self.readout()
            canvas.send_keys(key)
            self.require(self.readout() != before, f"key {key!r} left the crosshair")
        for button in self.region_buttons()[:1]:
            before = self.readout()
            button.send_keys("\ue007")  # enter
            self.require(self.readout() != before, "Enter on a region left the crosshair")
            canvas.send_keys("\ue012")
        for key in "rmkcn" if self.region_buttons() else "rc":
            seen, read = self.pixels(), self.readout()
            canvas.send_keys(key)
            changed = self.pixels() != seen or self.readout() != read
            self.require(changed, f"key {key} changed nothing")

    def check_touch(self) -> None:
        """Check that a touch moves the crosshair."""
        canvas = self.find(".planes canvas")
        self.bring_into_view(canvas)
        box = self.browser.execute_script(
            "const b = arguments[0].getBoundingClientRect(); return [b.x, b.y, b.width, b.height]",
            canvas,
        )
        before = self.readout()
        self.browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
        point = {"x": box[0] + 0.3 * box[2], "y": box[1] + 0.3 * box[3]}
        for kind, points in (("touchStart", [point]), ("touchEnd", [])):
            event = {"type": kind, "touchPoints": points}
            self.browser.execute_cdp_cmd("Input.dispatchTouchEvent", event)
        self.browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": False})
        moved = wait(lambda: self.readout() != before, seconds=2)
        self.require(moved, "a touch left the crosshair")

    def check_index(self) -> None:
        """Check sorting and filtering of the table of scans: names, and a column of numbers."""
        heads = self.browser.find_elements("css selector", "table.sortable .sort")
        columns: list[tuple[int, Callable[[str], Any]]] = [(0, str)]
        columns += [(column, float) for column in range(1, len(heads)) if self.is_number(column)]
        self.require(len(columns) > 1, "no column of numbers")
        for column, kind in columns[:2]:
            head = heads[column]
            self.bring_into_view(head)
            head.click()
            values = [kind(text) for text in self.read_column(column)]
            self.require(values == sorted(values), f"column {head.text} is not sorted")
            head.click()
            values = [kind(text) for text in self.read_column(column)]
            self.require(values == sorted(values, reverse=True), f"column {head.text}: no reverse")
        names = self.read_column(0)
        field = self.browser.find_element("css selector", ".filter input")
        field.send_keys(names[0])
        left = self.read_column(0)
        self.require(0 < len(left) < len(names), f"the filter shows {len(left)} scans")
        field.clear()
        field.send_keys(" \ue003")  # a character and backspace, so that the page hears of it

    def read_column(self, column: int) -> list[str]:
        """Return the visible cells of a column of the table of scans."""
        return list(self.browser.execute_script(COLUMN, column))

    def is_number(self, column: int) -> bool:
        """True if a column of the table of scans holds numbers only."""
        return all(re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", cell) for cell in self.read_column(column))

    def check_look(self, width: int, mode: str) -> None:
        """Check width and accessibility, and take a picture."""
        self.open(width, mode)
        if self.browser.find_elements("css selector", ".viewer-box"):
            self.wait_for_viewer()
        overflow = self.browser.execute_script(
            "return document.documentElement.scrollWidth - window.innerWidth"
        )
        self.require(overflow <= 0, f"{width} px, {mode}: {overflow} px too wide")
        if self.axe is not None:
            self.browser.execute_script(self.axe.read_text(encoding="utf-8"))
            result = self.browser.execute_async_script(
                "const done = arguments[arguments.length - 1];"
                "axe.run({exclude: arguments[0]})"
                ".then((r) => done(r.violations)).catch((e) => done(String(e)));",
                [LATER_ROWS],
            )
            for violation in result if isinstance(result, list) else [{"help": result}]:
                self.require(
                    violation.get("impact") not in (*SERIOUS, None),
                    f"{width} px, {mode}: axe {violation.get('id')}: {violation['help']}: "
                    f"{[node['html'][:100] for node in violation.get('nodes', [])[:3]]}",
                )
        if self.pictures is not None:
            self.pictures.mkdir(parents=True, exist_ok=True)
            name = f"{self.page.parent.name}-{width}-{mode}.png"
            shot = self.browser.execute_cdp_cmd(
                "Page.captureScreenshot", {"captureBeyondViewport": True}
            )
            (self.pictures / name).write_bytes(base64.b64decode(shot["data"]))

    def check_print(self) -> None:
        """Check that the page can be printed, and that paper cuts off no table or figure."""
        size = {"width": PAPER, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        cut_off = self.browser.execute_script(CUT_OFF)
        self.require(not cut_off, f"print: cut off: {cut_off}")
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        printed = self.browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
        document = base64.b64decode(printed["data"])
        self.require(document.startswith(b"%PDF") and len(document) > 5000, "no printed page")
        if self.pictures is not None:
            (self.pictures / f"{self.page.parent.name}.pdf").write_bytes(document)

    def check_console_and_network(self) -> None:
        """Check that the console is empty and that nothing but the page was requested."""
        for entry in self.browser.get_log("browser"):
            self.problems.append(f"console: {entry['level']} {entry['message'][:200]}")
        for entry in self.browser.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                address = message["params"]["request"]["url"]
                is_page = address.partition("#")[0] == self.page.as_uri()
                self.require(is_page or address.startswith("data:"), f"request: {address[:100]}")


def open_browser() -> Any:
    """Return a headless Chromium that records its console and its network."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    browser.set_script_timeout(120)
    return browser


def wait(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Return True as soon as a condition holds, False if it does not within a time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def main(argv: Sequence[str] | None = None) -> int:
    """Check the pages, print the problems, and return 1 if there are any."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    count = 0
    for page in arguments.page:
        print(page)
        for problem in ReportCheck(page, arguments.axe, arguments.pictures).run():
            print(f"  {problem}")
            count += 1
    print(f"{count} problems")
    return int(count > 0)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("page", type=Path, nargs="+", help="report.html of maediff")
    parser.add_argument("--axe", type=Path, help="axe.min.js of axe-core")
    parser.add_argument("--pictures", type=Path, help="folder for pictures and PDFs of the pages")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
