"""What bodies and queries may be."""

import json
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from tollkeeper_billing import models, schemas

TABLES = [models.Customer, models.Checkout, models.Credit, models.Purse, models.MeterEvent]
TAKEN = [schemas.NewCheckout, schemas.NewTopup, schemas.UsageQuery]


def is_taken(model: type[BaseModel], **fields: Any) -> bool:
    try:
        model.model_validate_json(json.dumps(fields))
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("model", TAKEN, ids=lambda model: str(model.__name__))
def test_no_column_of_a_table_can_be_written_and_no_price_named(model: type[BaseModel]) -> None:
    columns = {name for table in TABLES for name in table._meta.columns}
    named = {*columns, "price", "amount", "credit", "currency", "balance"}
    for name in named - set(model.model_fields):
        with pytest.raises(ValidationError) as caught:
            model.model_validate_json(json.dumps({name: "x"}))
        assert "extra_forbidden" in {error["type"] for error in caught.value.errors()}, name


@pytest.mark.parametrize("field", ["pack", "plan"])
def test_what_is_bought_has_a_name_of_1_to_100_characters(field: str) -> None:
    assert is_taken(schemas.NewCheckout, **{field: "x"})
    assert is_taken(schemas.NewCheckout, **{field: "x" * 100})
    for wrong in ("", "x" * 101, 1, True, ["small"], {"name": "small"}):
        assert not is_taken(schemas.NewCheckout, **{field: wrong}), wrong


@pytest.mark.parametrize("below", ["0", "0.5", "5.00", "999999999.99"])
def test_an_amount_is_dollars_and_cents(below: str) -> None:
    assert is_taken(schemas.NewTopup, pack="small", below=below)
    read = schemas.NewTopup.model_validate({"pack": "small", "below": below})
    assert read.amount == Decimal(below)


@pytest.mark.parametrize(
    "below",
    [
        *("", " 5", "5 ", "5\n", "-1", "+1", "1.", ".5", "1.234", "1e3", "1_000", "1,00", "$5"),
        *("NaN", "Infinity", "\u0665", "1000000000", 5, 5.0, None),
    ],
)
def test_anything_else_is_none(below: object) -> None:
    assert not is_taken(schemas.NewTopup, pack="small", below=below)


def test_whoever_sets_topups_says_which_pack_or_says_none() -> None:
    assert not is_taken(schemas.NewTopup)
    assert not is_taken(schemas.NewTopup, below="5.00")
    assert schemas.NewTopup.model_validate_json('{"pack": null}').amount == 0


def test_usage_is_summed_up_by_what_is_the_organizations_own() -> None:
    for by, taken in (("day", True), ("model", True), ("key", True), ("org", False), ("", False)):
        assert is_taken(schemas.UsageQuery, by=by) is taken
    for when, taken in (
        ("7d", True),
        ("2026-11-25T10:00:00Z", True),
        ("x", False),
        ("x" * 21, False),
    ):
        assert is_taken(schemas.UsageQuery, since=when) is taken
        assert is_taken(schemas.UsageQuery, until=when) is taken


def test_a_status_has_these_fields_and_no_more() -> None:
    shown = {"plan": None, "status": "none", "balance": "0.00", "held": "0.00", "hard_stop": True}
    assert schemas.Status.model_validate(shown).model_dump() == shown | {"currency": "usd"}
    with pytest.raises(ValidationError):
        schemas.Status.model_validate(shown | {"customer": "cus_1"})
