"""A process that serves every configuration of ``table.SERVERS`` by one of the packages."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.differential.table import SERVERS, LogLine
from tests.differential.wire import Address

SCRIPT = Path(__file__).with_name("serving.py")
_END_TIMEOUT_SECONDS = 10


class Servers:
    """The running process: addresses by name, and what was logged."""

    def __init__(self, process: subprocess.Popen[str], stderr: Path) -> None:
        self._process = process
        self._stderr = stderr
        hello = self._line()
        self.package: str = hello["package"]
        self.version: str = hello["version"]
        self.addresses: dict[str, Address] = hello["addresses"]

    def logged(self) -> list[LogLine]:
        """What was logged since the last call."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return [(name, level, message) for name, level, message in self._line()]

    def _line(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server has ended:\n{self._stderr.read_text()}")
        return json.loads(line)


@contextmanager
def serving(python: str, directory: Path, pythonpath: str | None = None) -> Iterator[Servers]:
    """Run ``serving.py`` by ``python`` until the block ends.

    Args:
        python: the interpreter.
        directory: an empty one, for unix sockets and the error output.
        pythonpath: where to find the package, if not installed for that interpreter.
    """
    settings = {name: _placed(name, SERVERS[name], directory) for name in available_servers()}
    stderr = directory / "stderr"
    with stderr.open("wb") as errors:
        process = subprocess.Popen(
            [python, str(SCRIPT), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=clean_environment(pythonpath),
            cwd=directory,
            text=True,
        )
    with process:
        try:
            servers = Servers(process, stderr)
            for address in servers.addresses.values():
                _await_listening(address)
            yield servers
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(_END_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def clean_environment(pythonpath: str | None) -> dict[str, str]:
    """This process's environment without what steers its own interpreter."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    if pythonpath is not None:
        environment["PYTHONPATH"] = pythonpath
    return environment


def available_servers() -> list[str]:
    """The names of ``table.SERVERS`` that this platform can serve."""
    missing = set()
    if not hasattr(socket, "AF_UNIX"):
        missing.update({"unix", "unix-trust"})
    if not _has_ipv6_loopback():
        missing.add("ipv6")
    return [name for name in SERVERS if name not in missing]


def _has_ipv6_loopback() -> bool:
    if not socket.has_ipv6:
        return False
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


def _placed(name: str, settings: dict[str, Any], directory: Path) -> dict[str, Any]:
    if "unix_socket" not in settings:
        return settings
    return {**settings, "unix_socket": str(directory / f"{name}.sock")}


def _await_listening(address: Address) -> None:
    """The listening socket exists before its address is told, so one connection is proof."""
    if len(address) == 1:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_END_TIMEOUT_SECONDS)
            connection.connect(str(address[0]))
        return
    socket.create_connection((str(address[0]), int(address[1])), _END_TIMEOUT_SECONDS).close()
