"""Classes that have the defaults of their instances' attributes only for who asks the class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import SimpleNamespace
from typing import Any

import pytest

from waitress.adjustments import Adjustments
from waitress.buffers import OverflowableBuffer
from waitress.instance_defaults import InstanceDefaults
from waitress.parser import HTTPRequestParser
from waitress.receiver import FixedStreamReceiver
from waitress.task import Task, WSGITask


class Lean(metaclass=InstanceDefaults, in_instances=("size", "name")):
    size: int = 1
    name: str = "lean"
    colour: str = "none"

    def __init__(self) -> None:
        self.size = 2


class LeanToo(Lean, in_instances=("weight",)):
    weight: int = 3


class Derived(Lean):
    name = "derived"


class TestTheClassItself:
    def test_answers_with_its_defaults(self) -> None:
        assert (Lean.size, Lean.name, Lean.colour) == (1, "lean", "none")
        assert (LeanToo.size, LeanToo.weight) == (1, 3)

    def test_does_not_have_them(self) -> None:
        assert not {"size", "name"} & vars(Lean).keys()
        assert not {"size", "weight"} & vars(LeanToo).keys()
        assert "colour" in vars(Lean)

    def test_names_them(self) -> None:
        assert {"size", "name", "weight", "colour"} <= set(dir(LeanToo))

    def test_has_no_others(self) -> None:
        with pytest.raises(AttributeError, match="'Lean' has no attribute 'weight'"):
            _ = Lean.weight  # type: ignore[attr-defined]


class TestAClassDerivedFromIt:
    def test_has_them_as_any_other(self) -> None:
        assert (Derived.size, Derived.name) == (1, "derived")
        assert {"size", "name"} <= set(dir(Derived))
        with pytest.raises(AttributeError, match="'Derived' has no attribute '__bool__'"):
            _ = Derived.__bool__  # type: ignore[attr-defined]

    def test_may_do_without_init(self) -> None:
        class Bare(LeanToo):
            def __init__(self) -> None:
                """Set nothing."""

        bare = Bare()
        assert (bare.size, bare.name, bare.weight, bare.colour) == (1, "lean", 3, "none")

    def test_may_have_them_of_another_base(self) -> None:
        class Mixin:
            size = 5

        class Before(Mixin, Lean):
            pass

        class Behind(Lean, Mixin):
            pass

        assert (Before.size, Before.name) == (5, "lean")
        assert (Behind.size, Behind.name) == (1, "lean")

    def test_may_have_them_of_a_sibling(self) -> None:
        class Plain(LeanToo):
            pass

        class Heavy(LeanToo):
            weight = 9

        class Both(Plain, Heavy):
            pass

        assert (Both.weight, Both.size) == (9, 1)

    def test_may_have_lean_ones_of_both_kinds(self) -> None:
        class Both(Derived, LeanToo):
            pass

        assert (Both.weight, Both.size, Both.name) == (3, 1, "derived")

    def test_may_ask_its_bases(self) -> None:
        class Asking(LeanToo):
            @property
            def weight(self) -> int:  # type: ignore[override]
                return super().weight + 1

        assert Asking().weight == 4

    def test_may_have_slots(self) -> None:
        class Slotted(Lean):
            __slots__ = ("size",)

        assert Slotted().size == 2

    def test_may_be_mixed_with_whatever_has_defaults_of_its_own_kind(self) -> None:
        class Mixin:
            _defaults = {"size": 5}

        class Mixed(Lean, Mixin):
            pass

        assert (Mixed.size, Mixed._defaults) == (1, {"size": 5})

    def test_may_be_abstract(self) -> None:
        class Abstract(Lean, ABC):
            @abstractmethod
            def do(self) -> None: ...

        with pytest.raises(TypeError, match="abstract"):
            Abstract()  # type: ignore[abstract]

    def test_sees_what_is_put_into_the_class_later(self) -> None:
        class Parent(metaclass=InstanceDefaults, in_instances=("size",)):
            size = 1

        class Child(Parent):
            pass

        Parent.size = 7
        assert (Child.size, Child().size) == (7, 7)

    def test_has_those_of_the_class_in_between(self) -> None:
        class Further(Derived):
            pass

        assert (Further.size, Further.name) == (1, "derived")


def instances() -> list[Any]:
    adj = Adjustments()
    channel: Any = SimpleNamespace(observer=SimpleNamespace(listening=False))
    request: Any = SimpleNamespace(version="1.1")
    return [
        HTTPRequestParser(adj),
        FixedStreamReceiver(3, OverflowableBuffer(10)),
        OverflowableBuffer(10),
        Task(channel, request),
        WSGITask(channel, request),
    ]


@pytest.mark.parametrize("instance", instances(), ids=lambda each: type(each).__name__)
def test_instances_begin_with_them(instance: Any) -> None:
    defaults = type(instance)._waitress_defaults
    names = [name for name in dir(defaults) if not name.startswith("_")]
    assert names
    for name in names:
        assert vars(instance)[name] == getattr(defaults, name)


@pytest.mark.parametrize("base", [WSGITask, HTTPRequestParser])
def test_default_of_a_subclass_is_not_overridden_by_init(base: Any) -> None:
    class Own(base):  # type: ignore[misc]
        status = "201 Created"
        version = "0.9"

    adj = Adjustments()
    channel: Any = SimpleNamespace(observer=SimpleNamespace(listening=False))
    own = Own(adj) if base is HTTPRequestParser else Own(channel, SimpleNamespace(version="1.1"))
    assert own.status == "201 Created"
    assert base is WSGITask or own.version == "0.9"
