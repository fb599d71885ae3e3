"""Settings of the manual; `sphinx-build -W -n -b html docs docs/_build/html` builds it."""

from __future__ import annotations

import pkgutil
from importlib.metadata import version as installed_version
from typing import Any

project = "waitress"
author = "The waitress contributors"
project_copyright = author
release = installed_version("waitress")
version = ".".join(release.split(".")[:2])

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

nitpicky = True

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_rtype = False
napoleon_custom_sections = [("Threads", "notes"), ("Source", "notes")]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["manual.css"]
html_title = f"waitress {release}"
html_show_sourcelink = False
html_copy_source = False


def plain_if_it_exists(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Show a reference to Python that this manual has no entry for without a link.

    Only if there is something of that name: the standard library is not linked, since the
    manual is built without a network, and most internals have no entry. A reference to
    what does not exist stays an error.
    """
    if node.get("refdomain") != "py":
        return None
    target, module, cls = node["reftarget"], node.get("py:module"), node.get("py:class")
    for name in (target, f"builtins.{target}", f"{module}.{target}", f"{module}.{cls}.{target}"):
        try:
            pkgutil.resolve_name(name)
        except (ValueError, ImportError, AttributeError):
            continue
        return content
    return None


def setup(app: Any) -> None:
    app.connect("missing-reference", plain_if_it_exists)
