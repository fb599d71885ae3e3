"""A production-quality pure-Python WSGI server, without dependencies.

Owns the two ways to serve an application in one call; :func:`create_server` is the third
way, for those who want the server in hand before it runs. All modules are loaded with the
package, but the command line's and those that only make what somebody may want to watch.

Row 11: imports all modules of the lower rows.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from waitress import (
    adjustments,
    buffers,
    channel,
    compat,
    parser,
    proxy_headers,
    receiver,
    rfc7230,
    server,
    task,
    trigger,
    utilities,
    wasyncore,
)
from waitress.server import create_server
from waitress.shutdown import Shutdown
from waitress.signals import StopSignals
from waitress.switching import switching_within

__all__ = [
    "adjustments",
    "buffers",
    "channel",
    "compat",
    "create_server",
    "logging",
    "parser",
    "profile",
    "proxy_headers",
    "receiver",
    "rfc7230",
    "serve",
    "serve_paste",
    "server",
    "task",
    "trigger",
    "utilities",
    "wasyncore",
]


def serve(app: Any, **kw: Any) -> int | None:
    """Serve a WSGI application until the server is stopped, by Ctrl-C for example.

    In the main thread SIGTERM, where it has no other handler, stops the server in order,
    too, unless ``handle_signals`` is off. Where systemd asks for it, it is told.

    Args:
        app: the application.
        kw: settings, as :class:`waitress.adjustments.Adjustments` takes them. Three more
            are for programs: ``_quiet`` configures no logging and tells no address;
            ``_server`` makes the server from the application and the settings, instead of
            :func:`create_server`; ``_profile`` runs under the profiler and prints its
            statistics at the end.

    Returns:
        ``None``; 3 when requests had to be cut at the end. ``sys.exit(serve(app))`` makes
        that the status of the process.

    Raises:
        ValueError: a setting is not allowed; TypeError: it is of an impossible kind.
        OSError: an address cannot be bound.

    Threads: the calling thread becomes the loop.
    """
    make_server: Callable[..., Any] = kw.pop("_server", create_server)
    quiet = kw.pop("_quiet", False)
    profiled = kw.pop("_profile", False)
    if not quiet:
        logging.basicConfig()
    with ExitStack() as at_end:
        # First of all: a signal waits until there is something to stop.
        takes_signals = adjustments.asbool(kw.get("handle_signals", True))
        signals = at_end.enter_context(StopSignals(takes_signals))
        made = make_server(app, **kw)
        # Whoever makes servers need not make ones of ours.
        lifecycle = getattr(made, "lifecycle", None)
        try:
            if isinstance(lifecycle, Shutdown):
                _prepare(made, lifecycle, signals, at_end)
            else:
                signals.give_back()
            if not quiet:
                made.print_listen("Serving on http://{}:{}")
        except BaseException:  # Ctrl-C, where the signals are not ours.
            if isinstance(lifecycle, Shutdown):
                made.task_dispatcher.shutdown()
                made.close()
            raise
        _run(made, profiled)
    return (lifecycle.exit_status or None) if isinstance(lifecycle, Shutdown) else None


def _prepare(made: Any, lifecycle: Shutdown, signals: StopSignals, at_end: ExitStack) -> None:
    """Begin whatever is for as long as the server runs."""
    if getattr(made.adj, "handle_signals", True):
        signals.stop(lifecycle)
    else:
        signals.give_back()
    _notify_systemd(lifecycle)
    at_end.enter_context(switching_within(getattr(made.adj, "switch_interval", 0)))


def _run(made: Any, profiled: bool) -> None:
    if profiled:
        profile("server.run()", globals(), {"server": made}, (), False)
    else:
        made.run()


def _notify_systemd(lifecycle: Shutdown) -> None:
    if "NOTIFY_SOCKET" in os.environ:
        # Few processes are systemd's; the others need not carry it in memory.
        from waitress.sd_notify import notifier_from

        notifier = notifier_from(os.environ, lifecycle.event_loop)
        if notifier is not None:
            notifier.start()
            lifecycle.listening.append(notifier.phase_changed)


def serve_paste(app: Any, global_conf: Any, **kw: Any) -> int:
    """Serve an application for PasteDeploy, as its entry point ``paste.server_runner``.

    Args:
        app: the application.
        global_conf: the defaults of the whole configuration file; not used.
        kw: settings, as text; see :func:`serve`.

    Returns:
        0; 3 when requests had to be cut at the end.
    """
    return serve(app, **kw) or 0


def profile(
    cmd: str,
    globals: dict[str, Any],
    locals: dict[str, Any],
    sort_order: tuple[str, ...],
    callers: bool,
) -> None:
    """Run a statement under the profiler; print the statistics to standard output.

    Args:
        cmd: the statement.
        globals: the global names it sees.
        locals: the local names it sees.
        sort_order: keys of :meth:`pstats.Stats.sort_stats`; empty for cumulative time,
            then calls, then time.
        callers: print who calls whom, instead of how long each takes.
    """
    # Few serve under the profiler; the others need not carry it in memory.
    import profile as profiler
    import pstats
    import tempfile

    handle, path = tempfile.mkstemp(prefix="waitress-profile-")
    os.close(handle)
    try:
        profiler.runctx(cmd, globals, locals, path)
        stats = pstats.Stats(path)
        stats.sort_stats(*(sort_order or ("cumulative", "calls", "time")))
        if callers:
            stats.print_callers()
        else:
            stats.print_stats()
    finally:
        os.remove(path)
