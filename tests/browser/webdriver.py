"""Just enough of a WebDriver client for one page; the standard library is all it needs.

Source: W3C WebDriver; the commands below ``goog/`` are chromedriver's own.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 60.0

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
CHROMEDRIVER = shutil.which("chromedriver")

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--hide-scrollbars",
]


class Browser:
    """A browser with one window."""

    def __init__(self, port: int, profile: Path) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={profile}"]}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self._path = ""
        made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self._path = f"/session/{made['sessionId']}"

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = None if method != "POST" else json.dumps(body or {})
        self._connection.request(method, self._path + path, data)
        answer = json.loads(self._connection.getresponse().read())["value"]
        if isinstance(answer, dict) and "error" in answer:
            raise AssertionError(answer["message"])
        return answer

    def close(self) -> None:
        self._call("DELETE", "")
        self._connection.close()

    def show(self, url: str) -> None:
        self._call("POST", "/url", {"url": url})

    def run(self, script: str) -> Any:
        """Run a function body in the page; return what it returns."""
        return self._call("POST", "/execute/sync", {"script": script, "args": []})

    def await_true(self, condition: str) -> None:
        """Return once an expression is true in the page; fail if it never is."""
        script = f"""
            const done = arguments[arguments.length - 1];
            const look = () => ({condition}) ? done(true) : setTimeout(look, 50);
            look();
        """
        assert self._call("POST", "/execute/async", {"script": script, "args": []})

    def text(self, element_id: str) -> str:
        return str(self.run(f"return document.getElementById('{element_id}').innerText"))

    def click(self, element_id: str) -> None:
        self.run(f"document.getElementById('{element_id}').click()")

    def emulate(self, width: int, dark: bool = False, height: int = 900) -> None:
        """Be a screen of so many CSS pixels, by day or by night."""
        self._devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._devtools("Emulation.setEmulatedMedia", features=[scheme])

    def _devtools(self, command: str, **params: Any) -> Any:
        return self._call("POST", "/goog/cdp/execute", {"cmd": command, "params": params})

    def picture(self) -> bytes:
        """Return the window as PNG."""
        return base64.b64decode(self._call("GET", "/screenshot"))

    def complaints(self) -> list[str]:
        """Return what the console has shown: errors of scripts, breaches of the policy."""
        return [each["message"] for each in self._call("POST", "/se/log", {"type": "browser"})]


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Start a browser with an empty profile; end it afterwards."""
    assert CHROMEDRIVER is not None
    with subprocess.Popen(
        [CHROMEDRIVER, "--port=0"], stdout=subprocess.PIPE, env={**os.environ, "LC_ALL": "C"}
    ) as driver:
        try:
            assert driver.stdout is not None
            port = None
            while port is None:
                line = driver.stdout.readline().decode()
                assert line, "chromedriver did not start"
                port = re.search(r"started successfully on port (\d+)", line)
            opened = Browser(int(port[1]), profile)
            try:
                yield opened
            finally:
                opened.close()
        finally:
            driver.terminate()
