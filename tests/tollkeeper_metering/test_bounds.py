"""What a request can cost at most: more than a provider would ever count, and not absurdly more."""

import json

import pytest

from tollkeeper_metering.bounds import OVERHEAD, input_bound

JSON = {"content-type": "application/json"}
MEDIA = 5000


def bound(document: object, media: int = MEDIA) -> int:
    return input_bound(json.dumps(document).encode(), JSON, media)


def chat(*parts: object) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": list(parts)}]}


def size(document: object) -> int:
    return len(json.dumps(document))


def test_a_text_has_at_most_a_token_for_each_byte_of_the_request() -> None:
    document = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    assert bound(document) == size(document) + OVERHEAD


def test_an_empty_request_has_its_frame() -> None:
    assert input_bound(b"", JSON, MEDIA) == OVERHEAD


def test_text_parts_count_by_their_bytes_too() -> None:
    document = chat({"type": "text", "text": "x" * 1000})
    assert bound(document) == size(document) + OVERHEAD


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
        {"type": "input_image", "file_id": "file_1"},
        {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        {"type": "document", "source": {"type": "url", "url": "https://x/y.pdf"}},
        {"type": "file", "file": {"file_id": "file_1"}},
        {"type": "input_file", "file_id": "file_1"},
        {"type": "video_url", "video_url": {"url": "https://x/y.mp4"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
    ],
)
def test_a_part_that_stands_for_more_than_its_bytes_is_held_to_cost_more(
    part: dict[str, object],
) -> None:
    document = chat(part)
    assert bound(document) >= size(document) - 100 + MEDIA


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}},
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": "A" * 400_000},
        },
        {"type": "file", "file": {"file_data": "data:application/pdf;base64," + "A" * 400_000}},
        {"type": "input_audio", "input_audio": {"data": "A" * 400_000, "format": "wav"}},
        {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 400_000},
    ],
)
def test_media_inside_a_request_is_not_held_to_cost_a_token_for_each_byte(
    part: dict[str, object],
) -> None:
    assert 400_000 // 16 <= bound(chat(part)) < 60_000


def test_each_picture_counts() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    one, three = bound(chat(part)), bound(chat(part, part, part))
    assert three - one >= 2 * MEDIA


@pytest.mark.parametrize(
    "arguments",
    [
        {"data": "some words of text " * 1000, "format": "markdown"},
        {"url": "data: some words of text " * 1000},
        {"media_type": "x", "data": "some words of text " * 1000},
    ],
)
def test_text_that_only_looks_like_media_counts_by_its_bytes(arguments: dict[str, str]) -> None:
    """A provider reads the input of a tool as text, whatever its keys are called."""
    use = {"type": "tool_use", "id": "t", "name": "save", "input": arguments}
    document = {"model": "m", "messages": [{"role": "assistant", "content": [use]}]}
    assert bound(document) >= size(document)


def test_quoted_json_inside_a_text_is_no_media() -> None:
    quoted = json.dumps({"type": "image_url", "url": "data:" + "x" * 1000})
    document = chat({"type": "text", "text": quoted})
    assert bound(document) >= size(document)


def test_a_document_that_is_text_counts_by_its_bytes() -> None:
    """Anthropic's documents may be plain text, and a provider reads all of it."""
    text = "some words of text " * 1000
    source = {"type": "text", "media_type": "text/plain", "data": text}
    document = chat({"type": "document", "source": source})
    assert bound(document) >= size(document)
    parts = {"type": "content", "content": [{"type": "text", "text": text}]}
    document = chat({"type": "document", "source": parts})
    assert bound(document) >= size(document)


@pytest.mark.parametrize(
    "part",
    [
        {"type": "file", "file": {"file_data": "data:text/plain;base64," + "A" * 400_000}},
        {"type": "input_file", "file_data": "data:text/csv;base64," + "A" * 400_000},
    ],
)
def test_a_file_of_text_counts_by_its_text(part: dict[str, object]) -> None:
    """300,000 letters, some 75,000 tokens."""
    assert bound(chat(part)) >= 75_000


def test_text_beside_media_in_one_part_counts_by_its_bytes() -> None:
    picture = {"url": "data:image/png;base64,AAAA"}
    document = chat({"type": "image_url", "image_url": picture, "text": "x" * 100_000})
    assert bound(document) >= 100_000


def test_media_that_a_tool_found_is_media_too() -> None:
    image = {"type": "base64", "media_type": "image/png", "data": "A" * 400_000}
    found = [{"type": "image", "source": image}]
    result = {"type": "tool_result", "tool_use_id": "t", "content": found}
    assert 25_000 <= bound(chat(result)) < 60_000


@pytest.mark.parametrize(
    "body",
    [
        b'{"type":"image","messages":[{"content":[{"type":"image","x":1e999}]}]}',
        b'{"type":"image","messages":5,"input":{"content":7}}',
        b'{"type":"image","messages":[null,5,{"content":[null,[],{"type":[]},{"type":{}}]}]}',
        b'{"type":"image","messages":[{"content":[{"type":"image","x":'
        + b"[" * 60
        + b"]" * 60
        + b"}]}]}",
    ],
)
def test_a_request_that_is_strange_is_bounded_by_its_bytes_at_least(body: bytes) -> None:
    assert input_bound(body, JSON, MEDIA) >= len(body)


PICTURE = {"type": "input_image", "image_url": "https://x/y.png"}
IMAGE = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(chat(IMAGE)).replace('"image"', '"im\\u0061ge"'),
        json.dumps(chat(IMAGE, {"type": "text", "text": "x", "y": 1.5})).replace("1.5", "1e999"),
        json.dumps(
            {"model": "m", "input": [{"type": "function_call_output", "output": [PICTURE]}]}
        ),
        json.dumps(
            {
                "model": "m",
                "input": [
                    {
                        "type": "computer_call_output",
                        "output": {"type": "computer_screenshot", "image_url": "https://x/y.png"},
                    }
                ],
            }
        ),
        json.dumps({"model": "m", "input": [PICTURE]}),
        json.dumps(chat({"type": "document", "source": {"type": "content", "content": [IMAGE]}})),
        json.dumps(
            chat({"type": "tool_result", "content": [{"type": "tool_result", "content": [IMAGE]}]})
        ),
    ],
    ids=["escaped", "no number", "tool", "screenshot", "item", "document", "nested"],
)
def test_no_picture_is_without_its_surcharge_wherever_it_hides(body: str) -> None:
    assert input_bound(body.encode(), JSON, MEDIA) >= MEDIA


def test_a_form_counts_by_the_size_of_what_is_uploaded() -> None:
    form = {"content-type": "multipart/form-data; boundary=x"}
    assert input_bound(b"x" * 100, form, MEDIA) == MEDIA
    assert input_bound(b"x" * 1_600_000, form, MEDIA) == 100_000


def test_a_request_made_to_be_slow_to_search_is_not() -> None:
    parts = [{"type": "image_url", "image_url": {"url": "data:"}}] * 50_000
    assert bound(chat(*parts)) > 50_000 * MEDIA
