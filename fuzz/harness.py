"""What all fuzzers share: instrumented imports, cuts, a limit of time, the main program.

Without atheris, everything but :func:`main` works: the ordinary tests run each check on
the seeds.
"""

from __future__ import annotations

import contextlib
import importlib
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any


def optional(name: str) -> Any:
    """Return a module, None if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


atheris = optional("atheris")

#: Octets at the end of each input that decide how the others are used.
CONTROL_BYTES = 4

#: Processor time that no input may take, in seconds. Inputs have a few KiB, or are pumped
#: up to :data:`PUMPED_BYTES`; what is linear takes milliseconds, though it is traced.
MOST_SECONDS = 2.0

#: How large a pumped input is. What is quadratic then takes some 10**9 steps.
PUMPED_BYTES = 1 << 16


def instrumented() -> contextlib.AbstractContextManager[Any]:
    """Return a context in which imported modules of the package tell what they cover."""
    if atheris is None:
        return contextlib.nullcontext()
    manager: contextlib.AbstractContextManager[Any] = atheris.instrument_imports(
        include=["waitress"]
    )
    return manager


def main(check: Callable[[bytes], None]) -> None:
    """Fuzz *check*, which raises if something is wrong, until libFuzzer's options say stop."""
    # Guides the fuzzer through regular expressions, which are C and not instrumented.
    atheris.enabled_hooks.add("RegEx")
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


def with_control(data: bytes) -> bytes:
    """Make a seed of octets: behind them, room for what decides how they are used."""
    return data + b"\0" * CONTROL_BYTES


def controlled(data: bytes) -> tuple[bytes, random.Random]:
    """Split an input into its octets, and what decides how they are used."""
    control = data[-CONTROL_BYTES:]
    return data[:-CONTROL_BYTES], random.Random(control)


def cut(data: bytes, chance: random.Random) -> list[bytes]:
    """Return *data* in pieces: single octets, or few or many pieces of any size."""
    longest = chance.choice((1, 1, 2, 5, 50, len(data) or 1))
    pieces = []
    start = 0
    while start < len(data):
        end = start + chance.randint(1, longest)
        pieces.append(data[start:end])
        start = end
    return pieces


def pumped(data: bytes, chance: random.Random) -> bytes:
    """Return *data* with one part of it repeated, the ends kept: what costs too much shows."""
    if not data:
        return data
    start = chance.randrange(len(data))
    end = start + 1 + chance.choice((0, 1, chance.randrange(len(data) - start)))
    part = data[start:end]
    return data[:start] + part * (PUMPED_BYTES // len(part)) + data[end:]


@contextlib.contextmanager
def limited_time() -> Iterator[None]:
    """Raise TimeoutError if it took more than :data:`MOST_SECONDS` of processor time."""
    begin = time.process_time()
    yield
    spent = time.process_time() - begin
    if spent > MOST_SECONDS:
        raise TimeoutError(f"took {spent:.1f} s")
