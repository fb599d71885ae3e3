"""Random settings, and the server's constants scaled down to the simulation's sizes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from waitress import channel, clients, outbound


def draw_settings(rng: random.Random, scale: int, mood: str) -> dict[str, Any]:
    """Return settings, as ``create_server`` takes them."""
    pick = rng.choice
    settings: dict[str, Any] = {
        "channel_request_lookahead": pick((0, 0, 0, 1, 5)),
        "recv_bytes": pick((1 + scale // 50, 100, 8192, 8192, 8192)),
        "inbuf_overflow": pick((scale // 4, scale, scale * 4, 524288)),
        "outbuf_overflow": pick((scale // 2, scale, scale * 4, 1048576)),
        "outbuf_high_watermark": pick((0, scale, scale * 4, 16777216)),
        "spool_limit": pick((0, 0, scale * 2, scale * 20, 1 << 30)),
        "max_request_body_size": scale * 6,
        "max_request_header_size": 1000,
        "channel_timeout": pick((5, 40, 120, 120)),
        "header_timeout": pick((0, 2, 30, 30)),
        "body_timeout": pick((0, 3, 60, 60)),
        "body_min_rate": pick((0, 240, 240)),
        "send_timeout": pick((4, 120, 120)),
        "linger_timeout": pick((0, 2, 30, 30)),
        "cleanup_interval": pick((2, 30)),
        "asyncore_loop_timeout": pick((1, 30, 30, 30)),
        "log_socket_errors": pick((True, False)),
        "expose_tracebacks": pick((True, False, False)),
        "asyncore_use_poll": pick((True, False)),
        "clear_untrusted_proxy_headers": False,
    }
    if mood == "stalling":
        settings["outbuf_overflow"] = scale // 2
        settings["outbuf_high_watermark"] = pick((0, scale))
        settings["spool_limit"] = scale * pick((1, 4, 10))
    if rng.random() < 0.25:
        settings["connection_limit"] = pick((1, 2, 3, 10))
    if rng.random() < 0.05:
        settings["connection_limit_per_ip"] = pick((1, 2))
    if rng.random() < 0.05:
        settings["channel_timeout"] = 0
    if rng.random() < 0.05:
        settings["send_timeout"] = 0
    return settings


@contextmanager
def scaled_constants(rng: random.Random, scale: int) -> Iterator[None]:
    """Have the server's own limits met by connections of the simulation's sizes."""
    changes: list[tuple[Any, str, Any]] = []
    if rng.random() < 0.7:
        changes = [
            (channel, "FLUSH_BYTES", scale),
            (channel, "SEND_BYTES", rng.choice((scale // 4, scale))),
            (channel, "LINGER_BYTES", scale * 100),
            (outbound, "SPOOL_FILE_BYTES", scale * 2),
            (clients, "LINGERING_LIMIT", rng.choice((1, 100, 100, 100))),
        ]
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]
    for module, name, value in changes:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
