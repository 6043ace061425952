"""The list of hooks that every plugin relies on: their order, their colour, how they are called."""

import inspect
from collections.abc import Callable
from typing import Any

import pluggy
import pytest

from tollkeeper.hookspecs import Hooks, empty_collection, hookimpl

# In the order of a request: the parameters, whether it is async, whether the first answer wins.
HOOKS = {
    "register": (["gateway"], False, False),
    "run": (["task_status"], True, False),
    "authenticate": (["exchange"], True, True),
    "admit": (["exchange"], True, False),
    "transform_request": (["exchange"], True, False),
    "respond": (["exchange"], True, True),
    "route": (["exchange"], True, True),
    "wrap_send": (["send"], False, False),
    "attempt": (["exchange", "attempt"], True, False),
    "tap": (["exchange"], False, False),
    "reply": (["exchange", "head"], False, False),
    "measure": (["exchange", "attempt"], False, True),
    "settle": (["exchange"], False, False),
    "notice": (["notice"], False, False),
}


def specifications() -> dict[str, Callable[..., Any]]:
    return {name: spec for name, spec in vars(Hooks).items() if name[0] != "_"}


def test_the_hooks_stand_in_the_order_of_a_request_each_in_its_colour() -> None:
    found = {
        name: (
            list(inspect.signature(spec).parameters)[1:],
            inspect.iscoroutinefunction(spec),
            spec.tollkeeper_spec["firstresult"],  # type: ignore[attr-defined]
        )
        for name, spec in specifications().items()
    }
    assert found == HOOKS
    assert list(found) == list(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_says_when_it_is_called(name: str) -> None:
    assert "When: " in (specifications()[name].__doc__ or "")


def test_a_new_collection_knows_the_hooks_and_shares_no_plugin_with_another() -> None:
    class Plugin:
        @hookimpl
        def settle(self) -> None:
            pass

    first, second = empty_collection(), empty_collection()
    first.register(Plugin())
    assert len(first.hook.settle.get_hookimpls()) == 1
    assert second.hook.settle.get_hookimpls() == []


def test_a_plugin_cannot_take_an_argument_that_its_hook_does_not_have() -> None:
    class Plugin:
        @hookimpl
        def settle(self, exchange: object, answer: object) -> None:
            pass

    with pytest.raises(pluggy.PluginValidationError, match="answer"):
        empty_collection().register(Plugin())
