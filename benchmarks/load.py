"""Load by wrk, and the Lua scripts that tell it what to ask.

Row 1: imports ``errors`` and ``launch``.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass

from benchmarks.errors import RowError
from benchmarks.launch import HOST

#: What wrk runs at its end. Its own report rounds, and is made for people.
_DONE = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    "benchmarks: requests=%.0f microseconds=%.0f p50=%.0f p99=%.0f failures=%.0f\\n",
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""
_TOLD = re.compile(r"^benchmarks: (.*)$", re.MULTILINE)

#: What browsers send, fifteen field lines with the Host that wrk adds.
BROWSER_FIELDS = {
    "Connection": "keep-alive",
    "Cache-Control": "max-age=0",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/126.0.0.0 Safari/537.36",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8",
    "Accept-Language": "en-GB,en;q=0.9,de;q=0.7",
    "Accept-Encoding": "gzip, deflate, br",
    "Referer": "http://127.0.0.1/catalogue/items?page=3&order=price",
    "Cookie": "session=4f1c8a0e9b7d4f6c8e2a1b3c5d7e9f01; theme=dark; consent=yes; region=eu",
    "Upgrade-Insecure-Requests": "1",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
    "Sec-Fetch-User": "?1",
    "If-None-Match": '"5e8c-61f0a2b7c3d80"',
}


@dataclass(frozen=True)
class Load:
    """What wrk saw."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    #: Refused and broken connections, time-outs, and answers of 400 and more.
    failures: int


def with_fields(fields: dict[str, str]) -> str:
    """Return a script that sends more field lines."""
    return "".join(f"wrk.headers[{_quoted(name)}] = {_quoted(fields[name])}\n" for name in fields)


def with_body(size: int) -> str:
    """Return a script that posts so many bytes."""
    return f'wrk.method = "POST"\nwrk.body = string.rep("x", {size})\n'


def pipelined(depth: int) -> str:
    """Return a script that sends several requests at once, and awaits as many answers."""
    return (
        "init = function(args)\n"
        f"  together = string.rep(wrk.format(), {depth})\n"
        "end\n"
        "request = function() return together end\n"
    )


def wrk(port: int, path: str, connections: int, seconds: int, script: str = "") -> Load:
    """Ask again and again over so many connections; tell what came of it."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script + _DONE)
        file.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout=10s", "--latency"]
        command += ["-s", file.name, f"http://{HOST}:{port}{path}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return parsed(done.stdout + done.stderr)


def parsed(output: str) -> Load:
    """Read what our script made wrk print at its end.

    Raises:
        RowError: it is not there.
    """
    told = _TOLD.search(output)
    if told is None:
        raise RowError(f"wrk gave no account: {output.strip()!r}")
    numbers = {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", told[1])}
    return Load(
        requests=numbers["requests"],
        seconds=numbers["microseconds"] / 1e6,
        p50_ms=numbers["p50"] / 1e3,
        p99_ms=numbers["p99"] / 1e3,
        failures=numbers["failures"],
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
