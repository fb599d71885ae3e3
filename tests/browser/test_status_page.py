"""The live page in a real browser, under its own policy.

``WAITRESS_PICTURES=DIR`` leaves the pictures there, to be looked at.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.webdriver import CHROMEDRIVER, CHROMIUM, Browser, browser
from tests.compat.live import Gate, Running, hello

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and CHROMEDRIVER), reason="needs chromium and chromedriver"),
]

Serve = Callable[..., Running]

#: A path that would do something if it were taken for markup.
HOSTILE = "/<img/src=x/onerror=alert(1)>"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def page(opened: Browser) -> Iterator[Browser]:
    opened.emulate(1240)
    opened.complaints()
    yield opened
    opened.show("about:blank")


class Stuck:
    """A server whose workers are all stuck, with requests in the queue."""

    def __init__(self, serve: Serve, paths: list[str]) -> None:
        self.gate = Gate()
        self.running = serve(self.gate, threads=4, status_listen="127.0.0.1:0")
        self.wires = [self.running.connect() for _ in paths]
        for wire, path in zip(self.wires, paths, strict=True):
            wire.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        for _ in range(4):
            self.gate.await_entry()

    @property
    def url(self) -> str:
        return url_of(self.running)

    def end(self) -> None:
        self.gate.opened.set()
        for wire in self.wires:
            wire.read_answer()
            wire.close()


@pytest.fixture
def stuck(serve: Serve) -> Iterator[Stuck]:
    made = Stuck(serve, ["/report?token=secret", HOSTILE, "/a", "/b", "/queued/1", "/queued/2"])
    yield made
    made.end()


def url_of(running: Running) -> str:
    return f"http://127.0.0.1:{running.server.status_listeners[0].effective_port}/"


def polled(count: int) -> str:
    return f"Number(document.documentElement.dataset.polls || 0) >= {count}"


def keep_picture(page: Browser, name: str) -> None:
    directory = os.environ.get("WAITRESS_PICTURES")
    if directory:
        (Path(directory) / f"{name}.png").write_bytes(page.picture())


def test_the_page_shows_the_server_s_state_and_breaks_no_rule_of_its_own(
    page: Browser, serve: Serve
) -> None:
    running = serve(hello, status_listen="127.0.0.1:0")
    with running.connect() as wire:
        for _ in range(20):
            wire.get("/")
        page.show(url_of(running))
        page.await_true(polled(1))
        assert page.text("health") == "ready"
        assert f"127.0.0.1:{running.port}" in page.text("facts")
        assert page.text("busy") == "0 of 4"
        assert page.text("conns") == "1"
        assert re.search(r"2xx\s+\d+", page.text("resp-legend"))
        assert "GET" in page.text("slow")
    assert page.complaints() == []


def test_it_refreshes_by_itself(page: Browser, serve: Serve) -> None:
    running = serve(hello, status_listen="127.0.0.1:0")
    page.show(url_of(running))
    page.await_true(polled(1))
    with running.connect():
        page.await_true("document.getElementById('conns').innerText === '1'")
    page.await_true("document.getElementById('conns').innerText === '0'")


def test_it_can_be_paused(page: Browser, serve: Serve) -> None:
    page.show(url_of(serve(hello, status_listen="127.0.0.1:0")))
    page.await_true(polled(1))
    page.click("pause")
    assert page.text("pause") == "Go on"
    assert (
        page.run("return document.getElementById('pause').getAttribute('aria-pressed')") == "true"
    )
    before = page.run("return Number(document.documentElement.dataset.polls)")
    page.click("pause")
    page.await_true(polled(before + 1))


def test_stuck_workers_and_the_queue_are_shown(page: Browser, stuck: Stuck) -> None:
    page.show(stuck.url)
    page.await_true("document.querySelectorAll('#queue tr').length === 2")
    assert page.text("busy") == "4 of 4"
    workers = page.text("workers")
    for path in ("/report", "/a", "/b"):
        assert path in workers
    assert "secret" not in page.run("return document.body.innerText")
    assert "/queued/1" in page.text("queue")
    keep_picture(page, "stuck")


def test_a_path_is_a_text_whatever_it_says(page: Browser, stuck: Stuck) -> None:
    page.show(stuck.url)
    page.await_true("document.querySelectorAll('#workers tr').length === 4")
    assert HOSTILE in page.text("workers")
    assert page.run("return document.querySelectorAll('main img').length") == 0
    assert page.complaints() == []


def test_a_server_that_is_gone_is_told(page: Browser, serve: Serve) -> None:
    running = serve(hello, status_listen="127.0.0.1:0")
    page.show(url_of(running))
    page.await_true(polled(1))
    running.stop()
    page.await_true("document.getElementById('health').innerText === 'no answer'")
    assert "does not answer" in page.text("notice")


def test_what_makes_it_unready_is_told(page: Browser, serve: Serve) -> None:
    running = serve(hello, status_listen="127.0.0.1:0")
    running.server.is_live = lambda: False
    page.show(url_of(running))
    page.await_true(polled(1))
    assert page.text("health") == "not live"
    assert "all workers are stuck" in page.text("notice")


@pytest.mark.parametrize("dark", [False, True], ids=["day", "night"])
@pytest.mark.parametrize("width", [390, 768, 1240])
def test_it_is_readable_at_every_width_by_day_and_by_night(
    page: Browser, stuck: Stuck, width: int, dark: bool
) -> None:
    page.emulate(width, dark)
    page.show(stuck.url)
    page.await_true("document.querySelectorAll('#queue tr').length === 2")
    page.await_true(polled(2))
    # Nothing is wider than the screen, and no text is smaller than can be read.
    assert page.run("return document.documentElement.scrollWidth") <= width
    sizes = page.run(
        "return [...document.querySelectorAll('main *:not(svg *)')].filter((e) => e.innerText)"
        ".map((e) => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 12
    for selector in ("body", ".facts", ".label", ".note", "td", ".warn", ".method", "footer a"):
        assert contrast(page, selector) >= 4.5, selector
    keep_picture(page, f"{width}-{'night' if dark else 'day'}")


def test_buttons_can_be_reached_by_the_keyboard_and_named_by_a_reader(
    page: Browser, serve: Serve
) -> None:
    page.show(url_of(serve(hello, status_listen="127.0.0.1:0")))
    page.await_true(polled(1))
    unnamed = page.run(
        "return [...document.querySelectorAll('button, a, section, svg')].filter((e) =>"
        "!(e.innerText || '').trim() && !e.getAttribute('aria-label')"
        "&& !e.getAttribute('aria-labelledby')).length"
    )
    assert unnamed == 0
    assert page.run("return document.documentElement.lang") == "en"
    page.click("whole")
    assert page.run("return document.getElementById('whole').ariaPressed") == "true"
    assert page.run("return document.getElementById('recent').ariaPressed") == "false"


def test_a_site_under_a_name_of_its_own_gets_nothing(page: Browser, serve: Serve) -> None:
    """The listener has no word of permission for other origins (CORS)."""
    running, other = serve(hello, status_listen="127.0.0.1:0"), serve(hello)
    page.show(f"http://127.0.0.1:{other.port}/")
    page.run(
        f"window.got = null; fetch('{url_of(running)}status.json')"
        ".then(() => window.got = 'read', () => window.got = 'refused')"
    )
    page.await_true("window.got")
    assert page.run("return window.got") == "refused"


def contrast(page: Browser, selector: str) -> float:
    """Return the contrast of an element's text and what is behind it (WCAG 2, 1.4.3)."""
    colours: Any = page.run(
        f"""
        let element = document.querySelector('{selector}');
        if (!element) return null;
        const text = getComputedStyle(element).color;
        let back = 'rgba(0, 0, 0, 0)';
        for (; element && back === 'rgba(0, 0, 0, 0)'; element = element.parentElement)
            back = getComputedStyle(element).backgroundColor;
        return [text, back].map((each) => each.match(/[\\d.]+/g).slice(0, 3).map(Number));
        """
    )
    if colours is None:
        return 21.0
    light, dark = sorted((luminance(each) for each in colours), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: list[float]) -> float:
    parts = [each / 255 for each in colour]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
