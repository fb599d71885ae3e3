"""How fast the server is, beside the release before it and beside its peers.

``python -m benchmarks`` runs the rows of :mod:`benchmarks.rows` and prints tables;
``docs/performance.rst`` tells how to read them. Linux only: the figures come from /proc.
"""
