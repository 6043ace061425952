"""How the fake says no."""

from tollkeeper.testing.stripe.refusals import Malformed, Refusal


def test_a_refusal_shows_what_it_has_and_no_more() -> None:
    bare = Refusal("no")
    assert bare.status == 400
    assert bare.document() == {"error": {"type": "invalid_request_error", "message": "no"}}
    full = Refusal("no", code="c", param="p", status=402, extra={"type": "card_error", "x": 1})
    assert full.document() == {
        "error": {"type": "card_error", "message": "no", "code": "c", "param": "p", "x": 1}
    }


def test_only_a_malformed_request_leaves_its_key_free() -> None:
    assert Refusal("no").kept
    assert not Malformed("no").kept
