"""The client's body on its way upstream: changed where it must be, the same elsewhere."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollkeeper_openai.service import upstream_body, with_usage_option

BODY = (
    b'{ "model" : "alias",\n\t"stream":true, '
    b'"messages":[{"role":"user","content":"\\u00e9"}], "odd":1e2 }'
)

flags = st.none() | st.booleans()
options = st.none() | st.dictionaries(
    st.sampled_from(["include_usage", "include_obfuscation", "new"]), flags, max_size=3
)
bodies = st.fixed_dictionaries(
    {"model": st.text(min_size=1), "messages": st.just([{"role": "user", "content": "hi"}])},
    optional={"stream_options": options, "n": st.integers(), "a}b": st.text()},
)


def test_a_body_that_needs_no_change_is_the_very_same() -> None:
    assert upstream_body(BODY, None, asks_usage=False) is BODY


def test_another_model_changes_no_other_byte() -> None:
    changed = upstream_body(BODY, 'up"stream', asks_usage=False)
    assert changed == BODY.replace(b'"alias"', b'"up\\"stream"')


def test_asking_for_usage_adds_one_member_and_changes_no_other_byte() -> None:
    changed = upstream_body(BODY, None, asks_usage=True)
    assert changed.startswith(BODY[:-2] + b",")
    assert json.loads(changed) == {**json.loads(BODY), "stream_options": {"include_usage": True}}


@settings(deadline=None)
@given(bodies, st.none() | st.text(), st.booleans(), st.sampled_from([None, 1]))
def test_what_goes_upstream_is_what_the_client_sent_but_for_the_model_and_the_usage_option(
    body: dict[str, Any], model: str | None, asks_usage: bool, indent: int | None
) -> None:
    sent = json.loads(upstream_body(json.dumps(body, indent=indent).encode(), model, asks_usage))
    wanted = dict(body)
    if model is not None:
        wanted["model"] = model
    if asks_usage:
        wanted["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    assert sent == wanted


@pytest.mark.parametrize(
    "body",
    [
        b'{"stream_options": {"include_usage": false, "include_usage": false}}',
        b'{"stream_options": {"include_usage": false}, "stream_options": {"include_usage": false}}',
        b'{"stream_options": {"include\\u005fusage": false}}',
        b'{"stream\\u005foptions": {"include_usage": false}}',
        b'{"stream_options": null, "stream_options": null}',
    ],
)
def test_no_spelling_of_the_option_talks_the_upstream_out_of_its_usage(body: bytes) -> None:
    options = json.loads(with_usage_option(body))["stream_options"]
    assert options["include_usage"] is True
