"""Defaults of attributes that each instance of a class has from its beginning.

CPython 3.12 and 3.13 take four times as long to read or write an attribute of an instance
where the class has one of the same name. Of some classes there is an instance for each
request: they name the attributes that their ``__init__`` always sets, and have these
defaults only for who asks the class itself. A class that somebody derives from one of
them has them in its bases, so that it may do without ``__init__``, or have its own.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Iterable
from typing import Any

__all__ = ["InstanceDefaults"]


class InstanceDefaults(ABCMeta):
    """The class of such classes; that of abstract ones, so that these can be mixed in.

    ``class C(metaclass=InstanceDefaults, in_instances=("a", "b"))`` promises that ``__init__``
    gives ``a`` and ``b`` to each instance of ``C`` itself. A subclass that has ``in_instances``,
    too, promises that of its own instances for those of ``C`` as well.
    """

    #: A class that has the defaults, and those of the bases; ``None`` where others have them.
    _waitress_defaults: type | None

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        in_instances: Iterable[str] | None = None,
        **kw: Any,
    ) -> InstanceDefaults:
        members = dict(namespace)
        of_bases = [
            vars(base)["_waitress_defaults"] if isinstance(base, mcls) else None for base in bases
        ]
        if in_instances is None:
            members["_waitress_defaults"] = None
            # Behind each base what it lacks; once, where several lack the same.
            both = [each for pair in zip(bases, of_bases, strict=True) for each in pair if each]
            bases = tuple(dict.fromkeys(both))
        else:
            own = {each: members.pop(each) for each in in_instances}
            own["__module__"] = namespace["__module__"]
            members["_waitress_defaults"] = type(
                f"{name}Defaults", tuple(filter(None, of_bases)), own
            )
        return super().__new__(mcls, name, bases, members, **kw)

    def __getattr__(cls, name: str) -> Any:
        """Return a default."""
        defaults = vars(cls)["_waitress_defaults"]
        if defaults is not None and hasattr(defaults, name):
            return getattr(defaults, name)
        raise AttributeError(f"type object {cls.__name__!r} has no attribute {name!r}")

    def __dir__(cls) -> list[str]:
        """Name the defaults, too."""
        defaults = vars(cls)["_waitress_defaults"]
        return [*super().__dir__(), *(() if defaults is None else dir(defaults))]
