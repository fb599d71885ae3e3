"""Crowds of hostile clients against a real server, in a process of its own.

What the functional tests and the simulation say of one client at a time is here said of
hundreds, on real sockets, with the clock on the wall: how long a normal client waits
beside them, what they cost in memory, descriptors and disk, and when they are gone.

``pytest -m hostile tests/hostile`` holds the figures against bounds that are generous,
since machines are shared; ``python -m tests.hostile`` prints the figures themselves.
Linux only: what a process costs is read from ``/proc``.
"""
