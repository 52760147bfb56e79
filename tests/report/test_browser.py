"""The page in a real browser: Chromium without a window, driven by its DevTools protocol over two pipes."""

import base64
import json
import os
import shutil
import signal
import time

import pytest

from supreme.report import frame, tables
from supreme.report.page import page
from supreme.report.plots import plots
from supreme.report.study import Study, study

fcntl = pytest.importorskip("fcntl")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = {"phone": (390, 844), "desk": (1280, 900)}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]


class Browser:
    """One page in Chromium: ``open``, ``ask`` (an expression), ``press`` a key, ``click`` an element, ``shoot``."""

    def __init__(self, folder):
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for pair in (os.pipe(), os.pipe()) for end in pair]
        read, self.write, self.read, write = ends
        words = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
        words += [f"--user-data-dir={folder}", "--disable-dev-shm-usage", "--hide-scrollbars", "about:blank"]
        null = os.open(os.devnull, os.O_RDWR)
        pipes = [(os.POSIX_SPAWN_DUP2, read, 3), (os.POSIX_SPAWN_DUP2, write, 4), (os.POSIX_SPAWN_DUP2, null, 2)]
        self.process = os.posix_spawn(CHROMIUM, words, os.environ, file_actions=pipes)
        for end in (read, write, null):
            os.close(end)
        self.number, self.buffer, self.session = 0, b"", None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]

    def call(self, method, **arguments):
        self.number += 1
        message = {"id": self.number, "method": method, "params": arguments}
        os.write(
            self.write, json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0"
        )
        while True:
            while b"\0" not in self.buffer:
                part = os.read(self.read, 1 << 20)
                assert part, "the browser ended"
                self.buffer += part
            text, _, self.buffer = self.buffer.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, file, size):
        width, height = WIDTHS[size]
        phone = size == "phone"
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.call("Page.navigate", url=f"file://{file}")
        deadline = time.monotonic() + 30
        while not self.ask("document.readyState === 'complete' && location.protocol === 'file:'"):
            assert time.monotonic() < deadline, "the page did not load"
            time.sleep(0.05)

    def ask(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key, code):
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def click(self, element):
        self.ask(f"{element}.scrollIntoView({{block: 'center', inline: 'center'}})")
        x, y = self.ask(
            f"(() => {{ const b = {element}.getBoundingClientRect();"
            " return [b.x + Math.min(b.width / 2, 20), b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def shoot(self, file, **clip):
        shot = self.call("Page.captureScreenshot", **({"clip": {**clip, "scale": 1}} if clip else {}))
        file.write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        os.close(self.write)
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        os.close(self.read)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Where a report was written; made once, by the first test."""
    return {"folder": tmp_path_factory.mktemp("report")}


@pytest.fixture
def shown(browser, plan, report):
    """Open the page of a report with all that can go wrong, at a width: ``shown("phone")``; plots of one table do."""
    if "page" not in report:
        records = plan.rich()
        data = frame(records)
        found = tables(data)
        drawn = [plots(table) if place == 1 else [] for place, table in enumerate(found)]
        studies = [study(table, data) if place == 1 else Study((), ()) for place, table in enumerate(found)]
        report["page"] = report["folder"] / "index.html"
        report["page"].write_text(page(records, data, found, drawn, studies), encoding="utf-8", errors="replace")

    def show(size):
        browser.open(report["page"], size)
        return browser

    return show


ROW = "document.querySelector('#table-1 tbody a[data-entry=\"{}\"]')"
SHOWN = "Array.from(document.querySelectorAll('#runs-1 .run')).filter((run) => run.checkVisibility())"


@pytest.mark.parametrize("size", WIDTHS)
def test_the_page_is_no_wider_than_the_screen(shown, size):
    window, width = shown(size), WIDTHS[size][0]
    assert window.ask("document.documentElement.scrollWidth") <= width
    window.ask("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert window.ask("document.documentElement.scrollWidth") <= width
    wide = (
        "Array.from(document.querySelectorAll('main *, header *, footer *'))"
        f".filter((one) => one.getBoundingClientRect().right > {width} + 1 && !one.closest('.scroll'))"
        ".map((one) => one.outerHTML.slice(0, 120))"
    )
    assert window.ask(wide) == []
    assert window.ask("document.querySelectorAll('.scroll').length") > 3


@pytest.mark.parametrize("size", WIDTHS)
def test_a_click_sorts_the_methods_below_the_references(shown, plan, size):
    window = shown(size)
    table = tables(frame(plan.rich()))[1]
    names = (
        "Array.from(document.querySelectorAll('#table-1 .results')[0].tBodies).flatMap((body) => Array.from(body.rows))"
    )
    names += ".map((row) => row.dataset.name)"
    given = [row.name for row in table.rows]
    assert window.ask(names) == given
    head = "Array.from(document.querySelectorAll('#table-1 .results')[0].querySelectorAll('thead button'))"
    head += ".find((one) => one.closest('th').title.startsWith('Accuracy minus'))"
    value = {row.name: row.cells["forget/accuracy_gap"] for row in table.rows}
    methods = [row.name for row in table.rows if not row.reference]
    known = sorted((name for name in methods if value[name].n), key=lambda name: value[name].mean)
    empty = [name for name in methods if not value[name].n]
    down = sorted(known, key=lambda name: -value[name].mean)
    first = given[: len(given) - len(methods)]
    for order in ([*first, *known, *empty], [*first, *down, *empty], given):
        window.click(head)
        assert window.ask(names) == order


@pytest.mark.parametrize("size", WIDTHS)
@pytest.mark.parametrize("how", ["name", "number", "keyboard"])
def test_a_row_opens_its_runs(shown, plan, size, how):
    window = shown(size)
    link = ROW.format("SSD")
    assert window.ask(f"{SHOWN}.length") == 0
    if how == "name":
        window.click(link)
    elif how == "number":
        window.click(f"{link}.closest('tr').querySelectorAll('td')[1]")
    else:
        window.ask(f"{link}.focus()")
        window.press("Enter", 13)
    records = [r for r in plan.rich() if r["run"]["scenario"] == "FullClass" and r["run"]["dataset"] == "Digits"]
    mine = [r for r in records if r["run"]["method"] == "SSD" and not r["run"]["variant"]]
    lines = window.ask(f"{SHOWN}.map((run) => run.innerText)")
    assert len(lines) == len(mine) == 6
    for record in mine:
        (line,) = [line for line in lines if record["config_hash"] in line]
        assert f"training {record['run']['training_seed']}," in line
        assert "torch 2.15.0" in line
        assert "cpu Some CPU" in line
    assert window.ask("document.querySelector('#runs-1 .chosen').innerText").startswith(
        f"6 of {len(records)} runs: SSD"
    )
    top = window.ask("document.querySelector('#runs-1').getBoundingClientRect().top")
    assert -1 <= top < WIDTHS[size][1]
    window.click("document.querySelector('#runs-1 .every')")
    assert window.ask(f"{SHOWN}.length") == len(records)


def test_a_row_of_one_target_opens_the_runs_on_it(shown):
    window = shown("desk")
    window.ask("document.querySelectorAll('#table-1 details.fold').forEach((one) => { one.open = true; })")
    window.click('document.querySelector(\'#table-1 a[data-entry="LFSSD"][data-target="7"]\')')
    lines = window.ask(f"{SHOWN}.map((run) => run.querySelector('summary').innerText)")
    assert len(lines) == 3
    assert all("LFSSD, target 7" in line for line in lines)
    assert sum("failed" in line for line in lines) == 1


def test_typing_filters_all_runs_again(shown):
    window = shown("desk")
    window.click(ROW.format("SSD"))
    window.ask("document.querySelector('#runs-1 .find').focus()")
    window.call("Input.insertText", text="lfssd 262")
    lines = window.ask(f"{SHOWN}.map((run) => run.querySelector('summary').innerText)")
    assert len(lines) == 2
    assert all("LFSSD" in line and "262" in line for line in lines)
    assert not window.ask("document.querySelector('#runs-1 .chosen').checkVisibility()")
