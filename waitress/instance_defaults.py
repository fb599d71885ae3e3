"""Defaults of attributes that each instance of a class has from its beginning.

CPython 3.12 and 3.13 take four times as long to read or write an attribute of an instance
where the class has one of the same name. Of some classes there is an instance for each
request: they name the attributes that their ``__init__`` always sets, and have these
defaults only for who asks the class itself. A class that somebody derives from one of
them has them as any other has, so that it may do without ``__init__``, or have its own.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["InstanceDefaults"]


class InstanceDefaults(type):
    """The class of such classes.

    ``class C(metaclass=InstanceDefaults, in_instances=("a", "b"))`` promises that instances
    of ``C`` itself always have ``a`` and ``b``. A subclass that has ``in_instances``, too,
    promises that for those of ``C`` as well.
    """

    #: The defaults that are no attributes of the class, those of its bases included.
    _defaults: dict[str, Any]

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        in_instances: Iterable[str] | None = None,
        **kw: Any,
    ) -> InstanceDefaults:
        ancestors = [each for base in reversed(bases) for each in reversed(base.__mro__)]
        inherited: dict[str, Any] = {}
        for ancestor in ancestors:
            inherited.update(vars(ancestor).get("_defaults", {}))
        members = dict(namespace)
        if in_instances is None:
            found = members.keys() | {each for ancestor in ancestors for each in vars(ancestor)}
            members.update((each, inherited[each]) for each in inherited.keys() - found)
            members["_defaults"] = {}
        else:
            members["_defaults"] = {
                **inherited,
                **{each: members.pop(each) for each in in_instances},
            }
        return super().__new__(mcls, name, bases, members, **kw)

    def __getattr__(cls, name: str) -> Any:
        """Return a default."""
        try:
            return cls._defaults[name]
        except KeyError:
            raise AttributeError(
                f"type object {cls.__name__!r} has no attribute {name!r}"
            ) from None

    def __dir__(cls) -> list[str]:
        """Name the defaults, too."""
        return [*super().__dir__(), *cls._defaults]
