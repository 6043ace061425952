"""How a mistake in the configuration is told."""

import pytest
from pydantic import ValidationError

from tollkeeper import Secret
from tollkeeper.explain import dotted, explain, nearest, own_findings
from tollkeeper.settings import ModelSettings, PriceSettings, ServerSettings, Table
from tollkeeper.toml_lines import KeyPath


class Locked(Table):
    door: Secret
    pin: tuple[Secret, ...] = ()


def told(table: type[Table], written: dict[str, object], path: KeyPath = ("t",)) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        table.model_validate(written)
    return [explain(detail, table, path, written) for detail in own_findings(caught.value)]


@pytest.mark.parametrize(
    ("table", "written", "message"),
    [
        (ServerSettings, {"prot": 1}, 'unknown key "prot" in [t] - did you mean "port"?'),
        (ServerSettings, {"open": "no"}, 't.open = "no": must be true or false'),
        (ServerSettings, {"grace": "long"}, 't.grace = "long": must be a number'),
        (ServerSettings, {"max_body": "much"}, 't.max_body = "much": a size is a number of bytes'),
        (ServerSettings, {"bind": 80}, "t.bind = 80: must be text"),
        (ServerSettings, {"max_connections": True}, "t.max_connections = true: must be a whole"),
        (ModelSettings, {"deployments": "x"}, 't.deployments = "x": must be an array'),
        (ModelSettings, {"deployments": [3]}, "t.deployments[0] = 3: must be a table"),
        (ModelSettings, {}, "t.deployments is missing"),
        (PriceSettings, {"input": "free", "output": 1}, 't.input = "free": must be a number, or'),
        (Locked, {"door": 1234}, "t.door = ***: must be text"),
        (Locked, {"door": "x", "pin": ([1234],)}, "t.pin[0] = ***: must be text"),
    ],
)
def test_a_mistake_is_told_with_its_key_its_value_and_what_it_should_be(
    table: type[Table], written: dict[str, object], message: str
) -> None:
    (line,) = told(table, written)
    assert line.startswith(message.replace(' - did you mean "port"?', ""))


def test_a_list_is_not_called_empty_because_its_only_item_is_wrong() -> None:
    (line,) = told(ModelSettings, {"deployments": [{"provider": "p"}]})
    assert line == "t.deployments[0].model is missing"


def test_the_nearest_name_is_offered_where_one_is_near() -> None:
    assert nearest("limts", ["limits", "keys"]) == ' - did you mean "limits"?'
    assert nearest("zzz", ["limits", "keys"]) == ""


def test_a_path_is_written_as_toml_writes_it() -> None:
    assert (
        dotted(("models", "gpt-4", "deployments", 0, "x.y")) == 'models.gpt-4.deployments[0]."x.y"'
    )
