"""How an attempt ended, in money: judged by what was sent, told, seen and held."""

import json
from collections.abc import Callable, Iterable
from decimal import Decimal

import pytest

from tollkeeper import Attempt, Deployment, Failed, Usage
from tollkeeper._server.chat import CHAT_DIALECT
from tollkeeper._server.relay import StreamRelay
from tollkeeper.dialect import MAX_TOKENS
from tollkeeper.ledger import Account
from tollkeeper.settings import PriceSettings
from tollkeeper.testing import chunk
from tollkeeper_metering.entries import NOTHING, Entry, OpenHold, count, judge, orphaned
from tollkeeper_metering.prices import make_markup, make_price

NOW = 1_780_000_000
PRICE = make_price(PriceSettings(input=Decimal(1), output=Decimal(2)), "toml")
"""1000 nano-USD for an input token, 2000 for one of output."""
DEPLOYMENT = Deployment("m", "up", "openai", "m")
COVERED: tuple[Account, ...] = (object(),)  # type: ignore[assignment] # only that it is there counts
FIFTH = make_markup(Decimal("0.20"))


def plain(amount: int) -> int:
    return amount


def make_hold(amount: int = 10**9, *, covered: bool = False) -> OpenHold:
    hold = OpenHold(
        1, "att_1", "req_1", 1, "acme", "key_1", "m", "up/m", PRICE.version, amount, NOW, PRICE
    )
    hold.covers = COVERED if covered else ()
    hold.bounded = covered
    return hold


def make_attempt(
    *, sent: bool = True, status: int = 200, usage: Usage | None = None, body: bytes = b""
) -> Attempt:
    return Attempt(DEPLOYMENT, 1, 0.0, sent=sent, status=status, usage=usage, body=body)


def judged(
    attempt: Attempt, hold: OpenHold | None = None, markup: Callable[[int], int] = plain
) -> Entry:
    return judge(attempt, hold or make_hold(), markup, NOW)


def test_what_was_never_sent_is_void() -> None:
    entry = judged(make_attempt(sent=False, status=0))
    assert (entry.state, entry.usage, entry.at) == ("voided", NOTHING, NOW)
    assert (entry.cost, entry.charge, entry.exposure) == (0, 0, 0)


def test_what_was_never_sent_because_its_hold_could_not_be_written_has_expired() -> None:
    hold = make_hold()
    hold.failure = Failed(503, "server_error", "locked")
    assert judged(make_attempt(sent=False, status=0), hold).state == "expired"


def test_a_hold_that_failed_late_does_not_make_a_sent_attempt_expire() -> None:
    hold = make_hold()
    hold.failure = Failed(503, "server_error", "locked")
    assert judged(make_attempt(status=0), hold).state == "estimated"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 429, 500, 503, 529])
def test_an_error_status_voids_whatever_usage_the_error_tells(status: int) -> None:
    entry = judged(make_attempt(status=status, usage=Usage(5, 5)))
    assert (entry.state, entry.charge, entry.exposure) == ("voided", 0, 0)


def test_usage_that_the_provider_told_is_posted_at_its_cost() -> None:
    entry = judged(make_attempt(usage=Usage(3, 2)))
    assert (entry.state, entry.usage.evidence) == ("posted", "provider")
    assert (entry.cost, entry.charge, entry.exposure) == (7000, 7000, 0)


def test_a_markup_makes_the_charge_and_leaves_the_cost() -> None:
    entry = judged(make_attempt(usage=Usage(3, 2)), markup=FIFTH)
    assert (entry.cost, entry.charge, entry.exposure) == (7000, 8400, 0)


@pytest.mark.parametrize(("amount", "charge"), [(6999, 6999), (7000, 7000), (7001, 7000), (0, 0)])
def test_a_covered_call_is_never_charged_above_its_hold(amount: int, charge: int) -> None:
    entry = judged(make_attempt(usage=Usage(3, 2)), make_hold(amount, covered=True))
    assert (entry.state, entry.cost, entry.charge) == ("posted", 7000, charge)
    assert entry.exposure == 7000 - charge


def test_a_call_that_nothing_covers_is_charged_what_it_cost() -> None:
    entry = judged(make_attempt(usage=Usage(3, 2)), make_hold(1))
    assert (entry.charge, entry.exposure) == (7000, 0)


def test_usage_that_was_only_counted_is_estimated_even_if_a_plugin_measured_it() -> None:
    entry = judged(make_attempt(usage=Usage(3, 2, evidence="counted")))
    assert (entry.state, entry.usage.evidence, entry.charge) == ("estimated", "counted", 7000)
    assert entry.exposure == 10**9 - 7000


@pytest.mark.parametrize("covered", [False, True])
def test_an_estimate_is_never_charged_above_the_hold(covered: bool) -> None:
    usage = Usage(3, 2, evidence="counted")
    entry = judged(make_attempt(usage=usage), make_hold(5000, covered=covered), FIFTH)
    assert (entry.cost, entry.charge, entry.exposure) == (7000, 5000, 0)


def test_an_attempt_of_which_nothing_was_seen_costs_nothing_and_exposes_its_hold() -> None:
    entry = judged(make_attempt(status=0, body=b"x" * 600), make_hold(123))
    assert (entry.state, entry.usage.evidence) == ("estimated", "estimated")
    assert (entry.cost, entry.charge, entry.exposure) == (0, 0, 123)


def test_an_orphan_is_charged_nothing_and_exposes_its_hold() -> None:
    entry = orphaned(make_hold(77), NOW + 5)
    assert (entry.state, entry.usage, entry.at) == ("estimated", NOTHING, NOW + 5)
    assert (entry.cost, entry.charge, entry.exposure) == (0, 0, 77)


def test_an_account_that_adopted_a_call_does_not_cap_what_it_is_charged() -> None:
    hold = make_hold(1)
    hold.covers = COVERED
    assert judged(make_attempt(usage=Usage(3, 2)), hold).charge == 7000


def test_no_usage_that_is_believed_overflows_the_sums_of_a_thousand_calls() -> None:
    """An upstream may tell what it likes, again and again."""
    dear = make_price(PriceSettings(input=Decimal(100), output=Decimal(500)), "toml")
    assert 1000 * dear.cost(Usage(MAX_TOKENS, MAX_TOKENS)) < 2**63


# What is seen. The customer pays for it, so it may never be more than what came.


def seen(*chunks: bytes, answers: int = 1) -> int:
    """Output tokens counted for a stream that came in these chunks."""
    relay = StreamRelay(CHAT_DIALECT, CHAT_DIALECT.reader(None), None, answers)
    for part in chunks:
        relay.feed(part)
    attempt = make_attempt()
    attempt.answered, attempt.seen_tokens = True, relay.seen_tokens
    return count(attempt).output_tokens


STREAM = [chunk("")] + [chunk("a ")] * 20
"""The chunk that names the role, then 20 of a token each."""
COMMENT = b": OPENROUTER PROCESSING\n\n"


def recut(events: Iterable[bytes], size: int) -> list[bytes]:
    whole = b"".join(events)
    return [whole[at : at + size] for at in range(0, len(whole), size)]


def test_each_event_that_is_no_frame_is_a_token() -> None:
    assert 18 <= seen(*STREAM) <= 20
    assert seen() == seen(chunk("")) == seen(chunk(""), chunk(None, finish="stop")) == 0


def test_the_frames_of_each_answer_are_no_tokens() -> None:
    answers = 6
    frames = [chunk("")] * answers + [chunk(None, finish="stop")] * answers
    assert seen(*frames, answers=answers) == 0


@pytest.mark.parametrize("size", [1, 7, 100, 255, 1000, 65536])
def test_the_count_does_not_depend_on_how_the_bytes_were_cut(size: int) -> None:
    assert seen(*recut(STREAM, size)) == seen(*STREAM)


@pytest.mark.parametrize("comments", [1, 5])
def test_comments_before_the_first_token_are_no_tokens(comments: int) -> None:
    assert seen(*[COMMENT] * comments) == 0


def test_a_stream_that_begins_with_a_comment_counts_as_one_without() -> None:
    assert seen(COMMENT, *STREAM) <= 20
    assert seen(COMMENT + STREAM[0], *STREAM[1:]) <= 20


def test_comments_in_between_are_no_tokens() -> None:
    quiet = [part for event in STREAM for part in (event, b": keepalive\n\n")]
    assert seen(*quiet) <= 20


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
def test_a_stream_with_other_line_ends_counts_no_more(end: bytes) -> None:
    assert seen(*[event.replace(b"\n", end) for event in STREAM]) <= 20


def test_an_event_that_names_its_kind_counts_once() -> None:
    assert seen(*[b"event: delta\n" + event for event in STREAM]) == seen(*STREAM)


def test_an_event_of_several_lines_counts_once() -> None:
    lines = [event.replace(b", ", b",\ndata: ") for event in STREAM]
    assert lines[0].count(b"data:") > 3
    assert seen(*lines) == seen(*STREAM)


def asked(*parts: object) -> Attempt:
    document = {"model": "m", "messages": [{"role": "user", "content": list(parts)}]}
    attempt = make_attempt(body=json.dumps(document).encode())
    attempt.answered = True
    return attempt


def test_the_input_is_counted_by_its_text_once_something_came_back() -> None:
    attempt = asked({"type": "text", "text": "x" * 600})
    attempt.seen_tokens = 7
    assert count(attempt) == Usage(100, 7, evidence="counted")
    attempt.answered = False
    assert count(attempt) == NOTHING


def test_media_in_a_request_is_not_counted_as_its_bytes() -> None:
    picture = {"url": "data:image/png;base64," + "iVBORw0K" * 50_000}
    assert count(asked({"type": "image_url", "image_url": picture})).input_tokens <= 5000


@pytest.mark.parametrize("body", [b"", b"nonsense", b"x" * 2_000_000, b"[" * 5000, b"\xff"])
def test_an_input_that_cannot_be_read_counts_nothing(body: bytes) -> None:
    attempt = make_attempt(body=body)
    attempt.answered = True
    assert count(attempt).input_tokens == 0
