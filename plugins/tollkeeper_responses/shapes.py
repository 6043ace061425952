"""What OpenAI's Responses API takes and answers, for the API reference."""

from tollkeeper.shapes import (
    BOOLEAN,
    COUNT,
    INTEGER,
    NAME,
    OBJECT,
    STRING,
    Shape,
    array,
    nullable,
    obj,
    one_of,
)

RESPONSE = obj(
    "id object model status output",
    id=STRING,
    object=one_of("response"),
    created_at={"type": "number"},
    model=STRING,
    status=STRING,
    output=array(OBJECT),
    usage=nullable(obj("", input_tokens=COUNT, output_tokens=COUNT, total_tokens=COUNT)),
    error=nullable(OBJECT),
)
CREATE = Shape(
    request=obj(
        "model input",
        model=NAME,
        input={"anyOf": [STRING, array(OBJECT)]},
        instructions=nullable(STRING),
        stream=nullable(BOOLEAN),
        store=nullable(BOOLEAN),
        previous_response_id=nullable(STRING),
        max_output_tokens=nullable(INTEGER),
        tools=array(OBJECT),
    ),
    reply=RESPONSE,
    streams=True,
)
RETRIEVE = Shape(
    reply={"anyOf": [RESPONSE, obj("object data", object=one_of("list"), data=array(OBJECT))]}
)
DELETE = Shape(reply=obj("id deleted", id=STRING, deleted=BOOLEAN))
