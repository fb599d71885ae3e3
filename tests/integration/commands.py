"""Commands that serve, run as a user runs them: in a process of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import waitress
from tests.compat.live import PATIENCE

SCRIPTS = Path(sysconfig.get_path("scripts"))

#: The server under test, whatever else is installed.
SERVER_PATH = str(Path(waitress.__file__).parent.parent)

WAITRESS_SERVE = (str(SCRIPTS / "waitress-serve"),)
PYTHON_M = (sys.executable, "-m", "waitress")


class Command:
    """A started command, whose output is read line by line as it comes.

    Warnings that name a file of the server's are errors: :meth:`end` looks for them.
    """

    def __init__(
        self, arguments: Sequence[Any], directory: Path, python_path: str = "", **kw: Any
    ) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [SERVER_PATH, python_path])),
            "PYTHONWARNINGS": "default",
        }
        self.process = subprocess.Popen(
            [str(each) for each in arguments],
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **kw,
        )
        self._lines: list[str] = []
        self._ended = False
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            with self._more:
                self._lines.append(line)
                self._more.notify_all()
        with self._more:
            self._ended = True
            self._more.notify_all()

    @property
    def output(self) -> str:
        """What was printed up to now, on both streams."""
        with self._more:
            return "".join(self._lines)

    def await_matches(self, pattern: str, count: int = 1) -> list[re.Match[str]]:
        """Return that many matches of the pattern in the output, when they are there."""

        def matches() -> list[re.Match[str]]:
            return list(re.finditer(pattern, "".join(self._lines)))

        with self._more:
            self._more.wait_for(lambda: self._ended or len(matches()) >= count, PATIENCE)
            found = matches()
        assert len(found) == count, f"{pattern!r} not found {count} times in:\n{self.output}"
        return found

    def await_addresses(self, count: int = 1) -> list[tuple[str, int]]:
        """Return host and port of each address served, as the command tells them."""
        pattern = r"Serving on http://(?:\[([^]]+)\]|([^:\s]+)):(\d+)"
        return [(each[1] or each[2], int(each[3])) for each in self.await_matches(pattern, count)]

    def await_status(self) -> int:
        """Return the exit status when the command has ended."""
        status = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return status

    def interrupt(self) -> int:
        """Send what Ctrl-C sends; return the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.await_status()

    def end(self) -> None:
        """End the process if it has not ended yet, and look at what it printed."""
        if self.process.poll() is None:
            try:
                self.interrupt()
            finally:
                # Else one that hangs would keep the reader, and the whole run, for ever.
                self.process.kill()
        assert self.process.stdout
        self._reader.join(PATIENCE)
        self.process.stdout.close()
        assert re.findall(r"waitress/\w+\.py:\d+: \w*Warning.*", self.output) == []
