"""What Anthropic's Messages API takes and answers, for the API reference."""

from tollkeeper.shapes import (
    BOOLEAN,
    COUNT,
    NAME,
    OBJECT,
    STRING,
    Shape,
    array,
    nullable,
    obj,
    one_of,
)

ERROR = obj(
    "type error", type=one_of("error"), error=obj("type message", type=STRING, message=STRING)
)
_ASKED = obj(
    "model messages",
    model=NAME,
    messages=array(obj("role content", role=STRING, content={"anyOf": [STRING, array(OBJECT)]})),
    system={"anyOf": [STRING, array(OBJECT)]},
    tools=array(obj("name input_schema", name=STRING, input_schema=OBJECT)),
)
CREATE = Shape(
    request={
        **_ASKED,
        "properties": {
            **_ASKED["properties"],
            "max_tokens": {"type": "integer", "minimum": 1},
            "stream": BOOLEAN,
        },
        "required": ["model", "messages", "max_tokens"],
    },
    reply=obj(
        "id type role content model usage",
        id=STRING,
        type=one_of("message"),
        role=one_of("assistant"),
        content=array(OBJECT),
        model=STRING,
        stop_reason=nullable(STRING),
        usage=obj("input_tokens output_tokens", input_tokens=COUNT, output_tokens=COUNT),
    ),
    streams=True,
    error=ERROR,
)
COUNT_TOKENS = Shape(request=_ASKED, reply=obj("input_tokens", input_tokens=COUNT), error=ERROR)
