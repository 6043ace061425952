"""For plugin authors: a gateway in memory, an upstream that follows a script, a clock that jumps.

    async def test_my_plugin_refuses_a_word():
        upstream = ScriptedUpstream()
        async with open_gateway(upstream, plugins={"mine": Mine}) as gateway:
            reply = await gateway.chat("a bad word")
        assert reply.status == 400

Requests run through the real parser, pipeline and connection; only sockets are missing.
"""

from tollkeeper.testing.gateway import (
    Answered,
    JumpClock,
    TestGateway,
    chat_body,
    open_gateway,
    unwrapped,
)
from tollkeeper.testing.upstream import (
    DONE,
    MODEL,
    ScriptedReply,
    ScriptedUpstream,
    chunk,
    completion,
    usage_chunk,
)

__all__ = [
    "DONE",
    "MODEL",
    "Answered",
    "JumpClock",
    "ScriptedReply",
    "ScriptedUpstream",
    "TestGateway",
    "chat_body",
    "chunk",
    "completion",
    "open_gateway",
    "unwrapped",
    "usage_chunk",
]
