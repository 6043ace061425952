"""What the plugin adds: two calls, and a header on their replies."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from tollkeeper import Exchange, Gateway, Head, Operation, PluginSettings
from tollkeeper_messages import COUNT, CREATE, Messages


def plugin() -> Messages:
    return Messages(PluginSettings())


def test_both_calls_are_added_under_the_paths_that_sdks_call() -> None:
    added: list[Operation] = []
    plugin().register(cast("Gateway", SimpleNamespace(add_operation=added.append)))
    assert [(operation.method, operation.path) for operation in added] == [
        ("POST", "/v1/messages"),
        ("POST", "/v1/messages/count_tokens"),
    ]
    for operation in added:
        assert operation.dialect is not None
        assert operation.dialect.name == "messages"


@pytest.mark.parametrize("operation", [CREATE, COUNT])
@pytest.mark.parametrize("status", [200, 401, 429])
def test_every_reply_of_its_calls_names_the_request(operation: Operation, status: int) -> None:
    exchange = Exchange(operation, "", {}, "test", 0.0, id="req_1")
    head = Head(status, {"content-type": "application/json"})
    plugin().reply(exchange, head)
    assert head.headers == {"content-type": "application/json", "request-id": "req_1"}


@pytest.mark.parametrize("dialect", [None, object()])
def test_replies_of_other_calls_are_left_alone(dialect: Any) -> None:
    other = Operation("other", "POST", "/v1/other", dialect=dialect)
    head = Head(200, {})
    plugin().reply(Exchange(other, "", {}, "test", 0.0), head)
    assert head.headers == {}


def test_it_is_a_guard() -> None:
    assert Messages.policy == "guard"
