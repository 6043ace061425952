"""The upstream that follows a script."""

from tollkeeper import UpstreamError
from tollkeeper.testing import DONE, ScriptedUpstream, chunk, completion, open_gateway, usage_chunk


async def test_it_answers_in_the_order_of_its_script_and_then_by_default() -> None:
    upstream = ScriptedUpstream()
    upstream.reply(completion("one"))
    upstream.reply({"error": {"message": "two"}}, status=422)
    upstream.fail()
    async with open_gateway(upstream) as gateway:
        assert (await gateway.chat()).text() == "one"
        assert (await gateway.chat()).status == 422
        assert (await gateway.chat()).status == 502
        assert (await gateway.chat()).text() == "hello"
    assert len(upstream.bodies) == len(upstream.attempts) == 4
    assert all(reply.closed for reply in upstream.replies)


async def test_a_stream_sends_waits_and_breaks_as_scripted() -> None:
    upstream = ScriptedUpstream()
    upstream.stream(chunk("a"), 0.001, chunk("b"), UpstreamError("broken", "x"))
    upstream.stream(chunk("c"), chunk(None, finish="stop"), usage_chunk(), DONE)
    async with open_gateway(upstream) as gateway:
        broken = await gateway.chat(stream=True)
        whole = await gateway.chat(stream=True)
    assert '"server_error"' in broken.events()[2]
    assert whole.text() == "c"
