"""A file that tells the number of the process, for as long as it serves.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

import contextlib
import os
import tempfile

__all__ = ["PidFile"]


class PidFile:
    """The file; it appears whole or not at all, and replaces what is there.

    Threads: any one at a time.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def write(self) -> None:
        """Write the number of this process.

        Raises:
            OSError: that is not possible; the file is named, and is as it was.
        """
        try:
            self._replace()
        except OSError as error:
            raise OSError(
                error.errno, f"cannot write the pid file {self.path}: {error.strerror}"
            ) from error

    def _replace(self) -> None:
        # Beside it, so that it can be renamed.
        handle, path = tempfile.mkstemp(prefix=".pid-", dir=os.path.dirname(self.path) or ".")
        try:
            with open(handle, "w", encoding="ascii") as file:
                file.write(f"{os.getpid()}\n")
            os.chmod(path, 0o644)
            os.replace(path, self.path)
        except BaseException:
            os.unlink(path)
            raise

    def remove(self) -> None:
        """Remove the file, if it still tells the number of this process.

        It does not where another process has written its own number, or where this one is
        a fork of the one that wrote it.
        """
        with contextlib.suppress(OSError), open(self.path, encoding="latin-1") as file:
            is_ours = file.read(32).strip() == str(os.getpid())
            if is_ours:
                os.unlink(self.path)
