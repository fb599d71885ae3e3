"""Programs that other people built on this server, as small real programs with tests."""

import pytest

# Its assertions are part of the tests, and count under ``python -O`` as well.
pytest.register_assert_rewrite("tests.compat.live", "tests.integration.commands")
