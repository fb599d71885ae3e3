"""Run the command line as ``python -m waitress``.

Row 13: imports ``runner``.
"""

from __future__ import annotations

import sys

from waitress.runner import run

if __name__ == "__main__":
    sys.exit(run())
