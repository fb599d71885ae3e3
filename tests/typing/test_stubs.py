"""Programs checked against the published stubs find here what the stubs promise.

mypy's ``stubtest`` compares ``types-waitress``, written by others for the released package,
with this package as it is imported. What this package has beyond the stubs is not asked
about (``--ignore-missing-stub``); every other finding must be on ``allowlist.txt``, which
gives a reason for each line, and a line without a finding fails as well.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import waitress

pytestmark = pytest.mark.differential

ALLOWLIST = Path(__file__).with_name("allowlist.txt")
STUBTEST_TIMEOUT_SECONDS = 300


@pytest.mark.timeout(STUBTEST_TIMEOUT_SECONDS + 30)
def test_published_stubs_describe_this_package(tmp_path: Path):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy.stubtest", "waitress"),
            *("--ignore-missing-stub", "--allowlist", str(ALLOWLIST)),
        ],
        cwd=tmp_path,  # not the project: mypy would prefer the source to the stubs
        env={
            **os.environ,
            "MYPYPATH": str(_unpacked_stubs(tmp_path / "stubs")),
            "PYTHONPATH": str(_package_parent()),
            "NO_COLOR": "1",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=STUBTEST_TIMEOUT_SECONDS,
    )
    assert done.returncode == 0, done.stdout


def test_every_allowed_finding_has_a_reason():
    for line in ALLOWLIST.read_text(encoding="utf-8").splitlines():
        name, _, reason = line.partition("#")
        assert not name.strip() or len(reason.strip()) > 20, line


def _unpacked_stubs(directory: Path) -> Path:
    """Copy the stubs to ``directory``/waitress, where ``MYPYPATH`` lets mypy find them first."""
    distribution = metadata.distribution("types-waitress")
    for file in distribution.files or ():
        if file.parts[0] == "waitress-stubs" and file.suffix == ".pyi":
            target = directory.joinpath("waitress", *file.parts[1:])
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(str(distribution.locate_file(file)), target)
    return directory


def _package_parent() -> Path:
    assert waitress.__file__ is not None
    return Path(waitress.__file__).parents[1]
