"""Real applications and real clients on a live server (extra ``integration``).

What is not installed is skipped. Third parties are imported by ``pytest.importorskip``,
which also lets pass the warnings that some of them give when they are imported; warnings
of our own code stay errors.
"""
