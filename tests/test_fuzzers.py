"""The checks of the fuzzers, on their seeds and on small changes of them.

Without the fuzzing engine this finds little that is new, but it keeps the checks alive:
seeds pass, and what they are to find is found.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

# The checks are assertions, and are to hold under "python -O" too.
pytest.register_assert_rewrite("fuzz")

from fuzz import harness, seeds  # noqa: E402

ROOT = Path(__file__).parent.parent
TARGETS = list(seeds.TARGETS)
SEEDS = {target: seeds.seeds(target) for target in TARGETS}
TARGET = pytest.mark.parametrize("target", TARGETS)


def check_of(target: str):
    return importlib.import_module(f"fuzz.fuzz_{target}").check


@TARGET
def test_every_seed_passes(target):
    check = check_of(target)
    for seed in SEEDS[target]:
        check(seed)


@TARGET
def test_no_octets_at_all_pass(target):
    check_of(target)(b"")


#: Octets that mean something to one reader or another.
WORDS = [b"\r\n", b"\r", b"\n", b"\0", b"\t", b" ", b":", b";", b",", b'"', b"\\", b"0", b"f", b"%"]
WORDS += [b"\xa0", b"\xff", b"/", b"[", b"]", b"#", b"=", b"\r\n\r\n", b"chunked", b"close", b"_"]
WORDS += [b"Host: h\r\n", b"Content-Length: 1\r\n", b"GET / HTTP/1.1\r\n", b"0\r\n\r\n"]


@st.composite
def changed_seeds(draw: st.DrawFn, target: str) -> bytes:
    """Give a seed in which a few octets were taken out, put in or written twice."""
    data = draw(st.sampled_from(SEEDS[target]))[: -harness.CONTROL_BYTES]
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(start + draw(st.integers(0, 3)), len(data))
        word = draw(st.sampled_from([b"", data[start:end] * 2, *WORDS]))
        data = data[:start] + word + data[end:]
    return data + draw(st.binary(min_size=harness.CONTROL_BYTES, max_size=harness.CONTROL_BYTES))


# The checks limit processor time by themselves; a deadline counts what others take, too.
@TARGET
@settings(deadline=None)
@given(st.data())
def test_changed_seeds_pass(target, data):
    check_of(target)(data.draw(changed_seeds(target)))


@TARGET
@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_octets_pass(target, data):
    check_of(target)(data)


# -- the harness -----------------------------------------------------------------------


def test_seeds_are_written_for_every_target(tmp_path):
    seeds.main(str(tmp_path))
    for target in TARGETS:
        written = [path.read_bytes() for path in (tmp_path / target).iterdir()]
        assert sorted(written) == sorted(SEEDS[target])
        assert len(written) >= 15
    assert len(SEEDS["parser"]) > 800


@given(st.binary())
def test_cuts_lose_nothing(data):
    octets, chance = harness.controlled(data)
    assert b"".join(harness.cut(octets, chance)) == octets


@settings(deadline=None)
@given(st.binary(min_size=5))
def test_pumped_input_is_large_and_keeps_its_ends(data):
    octets, chance = harness.controlled(data)
    pumped = harness.pumped(octets, chance)
    assert abs(len(pumped) - harness.PUMPED_BYTES) <= len(octets)
    assert pumped[:1] == octets[:1]
    assert pumped[-1:] == octets[-1:]


def test_input_that_takes_too_long_fails(monkeypatch):
    monkeypatch.setattr(harness, "MOST_SECONDS", -1.0)
    with pytest.raises(TimeoutError, match="took"), harness.limited_time():
        pass


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_is_a_program(target):
    source = (ROOT / "fuzz" / f"fuzz_{target}.py").read_text(encoding="utf-8")
    assert source.endswith('if __name__ == "__main__":\n    harness.main(check)\n')
    assert target in (ROOT / "fuzz" / "run").read_text(encoding="utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_command_without_seconds_says_what_is_missing():
    done = subprocess.run(["bash", ROOT / "fuzz" / "run"], capture_output=True, check=False)
    assert done.returncode
    assert b"seconds for each target" in done.stderr
