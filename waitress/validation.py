"""Whether the values of settings are allowed: each alone, and then all of them together.

Nothing here asks the system. What is refused is told in one form: the reason, the setting,
its value, and what is allowed.

Row 6: imports ``settings`` and ``settings_schema``.
"""

from __future__ import annotations

import socket
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from waitress.settings import KNOWN_PROXY_HEADERS, SETTING_OF
from waitress.settings_schema import Setting

__all__ = [
    "check_combination",
    "check_drain_delay",
    "check_proxy_trust",
    "check_range",
    "check_reuse_port",
    "check_setting",
    "check_sockets",
    "check_stuck",
    "converted",
    "refusal",
]

# One value.


def converted(name: str, converter: Callable[[Any], Any], value: Any) -> Any:
    """Convert a value; tell of it, too, where that fails."""
    try:
        return converter(value)
    except (ValueError, OverflowError) as exc:
        raise ValueError(refusal(str(exc), name, value)) from exc
    except (TypeError, AttributeError) as exc:
        raise TypeError(refusal(str(exc), name, value)) from exc


def check_range(setting: Setting, value: Any, made: Any) -> None:
    """Refuse a value when what was made of it is not what the setting may be."""
    if not setting.check.accepts(made):
        raise ValueError(refusal(f"Invalid value for {setting.name}", setting.name, value))


def check_setting(setting: Setting, value: Any) -> Any:
    """Convert and check one value, without regard to others and without asking the system.

    Returns:
        The converted value.

    Raises:
        ValueError, TypeError: as :class:`waitress.adjustments.Adjustments` does, with the
            same text.
    """
    made = converted(setting.name, setting.converter, value)
    check_range(setting, value, made)
    return made


def refusal(reason: str, name: str, value: Any) -> str:
    """Tell why a value is refused: the reason, the option, the value, what is allowed."""
    setting = SETTING_OF.get(name)
    allowed = f"; allowed: {setting.check.text}" if setting is not None else ""
    return f"{reason} ({name}={value!r}{allowed})"


# Values together.


def check_combination(given: Iterable[str]) -> None:
    """Refuse settings that contradict each other by being there, whatever their values."""
    names = set(given)
    host_or_port = names & {"host", "port"}
    if "listen" in names and host_or_port:
        raise ValueError("host or port may not be set if listen is set.")
    if "listen" in names and "sockets" in names:
        raise ValueError("socket may not be set if listen is set.")
    if "sockets" in names and host_or_port:
        raise ValueError("host or port may not be set if sockets is set.")
    if "sockets" in names and "unix_socket" in names:
        raise ValueError("unix_socket may not be set if sockets is set")
    if "unix_socket" in names and host_or_port:
        raise ValueError("unix_socket may not be set if host or port is set")
    if "unix_socket" in names and "listen" in names:
        raise ValueError("unix_socket may not be set if listen is set")


def check_proxy_trust(adj: Any, given: Iterable[str]) -> None:
    """Refuse trust in headers of nobody; set what is trusted by default.

    Args:
        adj: the settings.
        given: the names of those that were given.
    """
    if adj.trusted_proxy is None:
        if "trusted_proxy_count" in given:
            raise ValueError("trusted_proxy_count has no meaning without setting trusted_proxy")
        if adj.trusted_proxy_headers:
            raise ValueError("trusted_proxy_headers has no meaning without setting trusted_proxy")
        if adj.proxy_protocol:
            raise ValueError("proxy_protocol has no meaning without setting trusted_proxy")
    # The default of the class is None: "not given", to those who read it there.
    adj.trusted_proxy_count = adj.trusted_proxy_count or 1
    adj.trusted_proxy_headers = _checked_proxy_headers(adj.trusted_proxy_headers)
    # With the PROXY protocol, peers may be trusted for the sake of that alone.
    is_for_headers = adj.trusted_proxy is not None and not adj.proxy_protocol
    if is_for_headers and not adj.trusted_proxy_headers:
        warnings.warn(
            "No proxy headers were marked as trusted, but trusted_proxy was set. "
            "Implicitly trusting X-Forwarded-Proto for backwards compatibility. "
            "This will be removed in future versions of waitress.",
            DeprecationWarning,
            stacklevel=3,
        )
        adj.trusted_proxy_headers = {"x-forwarded-proto"}


def _checked_proxy_headers(headers: Iterable[str]) -> set[str]:
    trusted = {header.lower() for header in headers}
    unknown = trusted - KNOWN_PROXY_HEADERS
    if unknown:
        raise ValueError(
            f"Received unknown trusted_proxy_headers value ({', '.join(sorted(unknown))}) "
            f"expected one of {', '.join(sorted(KNOWN_PROXY_HEADERS))}"
        )
    if "forwarded" in trusted and len(trusted) > 1:
        raise ValueError(
            "The Forwarded proxy header and the X-Forwarded-{By,Host,Proto,Port,For} headers "
            "are mutually exclusive. Can't trust both!"
        )
    return trusted


def check_stuck(adj: Any) -> None:
    """Refuse the remedies for stuck requests where nobody looks for these."""
    if not adj.stuck_request_seconds:
        for name in ("replace_stuck_threads", "kill_stuck_seconds"):
            if getattr(adj, name):
                raise ValueError(f"{name} has no meaning without setting stuck_request_seconds")


def check_drain_delay(adj: Any) -> None:
    """Refuse a stop that has no time for what is in flight."""
    if adj.drain_delay and adj.drain_delay >= adj.graceful_timeout:
        raise ValueError(
            "No time is left after drain_delay for what is in flight (drain_delay="
            f"{adj.drain_delay:g}; allowed: less than graceful_timeout, "
            f"{adj.graceful_timeout:g}, which includes it)"
        )


def check_reuse_port(adj: Any) -> None:
    """Refuse to share ports where there are none; the addresses have been resolved."""
    if not adj.reuse_port:
        return
    if not hasattr(socket, "SO_REUSEPORT"):
        raise ValueError(
            "This system has no SO_REUSEPORT (reuse_port=True; allowed: false; several "
            "processes can share one inherited socket instead)"
        )
    internet = (socket.AF_INET, socket.AF_INET6)
    is_bound_elsewhere = bool(adj.unix_socket or adj.sockets)
    if is_bound_elsewhere or not any(address[0] in internet for address in adj.listen):
        raise ValueError(
            "There is no Internet address for the server to bind (reuse_port=True; allowed: "
            "false, or a host and port in listen)"
        )


def check_sockets(sockets: Sequence[Any]) -> None:
    """Check that ready-made sockets are of kinds that can be served together.

    Raises:
        ValueError: Internet and Unix sockets are mixed, or one is neither, or one is
            no stream socket.
    """
    internet = {socket.AF_INET, socket.AF_INET6}
    unix = {getattr(socket, "AF_UNIX", None)}
    families = {sock.family for sock in sockets}
    told = ", ".join(f"{_name(sock.family)} {_name(sock.type)}" for sock in sockets)
    if families & internet and families & unix:
        raise ValueError(f"Internet and UNIX sockets may not be mixed. (sockets: {told})")
    if families - internet - unix or any(sock.type != socket.SOCK_STREAM for sock in sockets):
        raise ValueError(f"Only Internet or UNIX stream sockets may be used. (sockets: {told})")


def _name(number: int) -> str:
    """Name a family or type of a socket, which may be a number unknown to Python."""
    return str(getattr(number, "name", number))
