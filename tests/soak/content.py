"""What bodies contain: bytes that follow from a name, and from nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

BLOCK_BYTES = 16384


def blocks(name: str, size: int) -> Iterator[bytes]:
    """Yield the body of that name and size; every block differs from all others."""
    for number, at in enumerate(range(0, size, BLOCK_BYTES)):
        wanted = min(BLOCK_BYTES, size - at)
        yield hashlib.shake_128(f"{name} {number}".encode()).digest(wanted)


def content(name: str, size: int) -> bytes:
    """Return the body of that name and size."""
    return b"".join(blocks(name, size))


def digest(name: str, size: int) -> str:
    """Return the hash of the body of that name and size."""
    result = hashlib.sha256()
    for block in blocks(name, size):
        result.update(block)
    return result.hexdigest()
