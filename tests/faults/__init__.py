"""Faults of the system, of the application and of operators, each of them the real one.

The lack is a limit that the kernel enforces, the signal is sent, the process is killed: in
processes of their own where they have to be. What takes a server's process stands behind
the marker ``faults``; the rest belongs to the default run. That 500 clients that drip
their heads keep nobody else from being served is shown in ``tests/hostile`` (``heads``).
"""
