"""Say what ``Adjustments`` makes of settings, by whichever ``waitress`` is imported.

Run as ``python describing.py '[{"setting": value}, ...]' '["attribute", ...]'``. Prints, as
JSON, for each set of keywords either a dictionary of the attributes as text or the
exception, and the warnings given.
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import Any

from waitress.adjustments import Adjustments


def main() -> None:
    keyword_sets, names = json.loads(sys.argv[1]), json.loads(sys.argv[2])
    print(json.dumps([outcome(keywords, names) for keywords in keyword_sets]))


def outcome(keywords: dict[str, Any], names: list[str]) -> list[Any]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            adjustments = Adjustments(**keywords)
        except Exception as error:
            made: Any = f"{type(error).__name__}: {error}"
        else:
            made = {name: _text(getattr(adjustments, name)) for name in names}
    return [made, [str(warning.message) for warning in caught]]


def _text(value: Any) -> str:
    if isinstance(value, (set, frozenset)):
        return repr(sorted(value))
    return repr(value)


if __name__ == "__main__":
    main()
