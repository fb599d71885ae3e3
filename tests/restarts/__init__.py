"""Rolling restarts behind real proxies, under load: what do clients notice?

``python -m tests.restarts`` runs all of it and prints a table; the tests of marker
``restarts`` run it and judge. Needs the programs ``haproxy`` and ``nginx``; what is not
installed is left out.
"""
