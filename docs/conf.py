"""Settings of the manual; `sphinx-build -W -n -b html docs docs/_build/html` builds it."""

from __future__ import annotations

from importlib.metadata import version as installed_version

project = "waitress"
author = "The waitress contributors"
project_copyright = author
release = installed_version("waitress")
version = ".".join(release.split(".")[:2])

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

nitpicky = True
# What the standard library documents is named, not linked: the manual is built without a network.
nitpick_ignore_regex = [
    (r"py:.*", r"(socket|logging|threading|collections|typing|types|io|pkgutil|getopt)(\..*)?"),
    (
        r"py:(class|exc|obj|data)",
        r"(int|float|str|bytes|bool|list|dict|tuple|set|None|True|False|object)",
    ),
    (r"py:(class|exc)", r"(ValueError|TypeError|OSError|RuntimeError|AssertionError|Exception)"),
]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_rtype = False
napoleon_custom_sections = [("Threads", "notes"), ("Source", "notes")]

html_theme = "furo"
html_title = f"waitress {release}"
html_show_sourcelink = False
html_copy_source = False
