from tollkeeper_wordguard import HEADER, Wordguard

from tollkeeper.testing import ScriptedUpstream, open_gateway

PLUGINS = {"wordguard": Wordguard}
TOML = """
[plugins.wordguard]
words = ["Xylophone"]
stamp = "looked-at"
"""


async def test_a_refused_word_never_goes_upstream() -> None:
    upstream = ScriptedUpstream()
    async with open_gateway(upstream, TOML, plugins=PLUGINS) as gateway:
        reply = await gateway.chat("play the XYLOPHONE, please")
    assert reply.status == 400
    assert reply.code == "invalid_request"
    assert reply.json()["error"]["message"] == "The word 'xylophone' is refused here."
    assert upstream.bodies == []


async def test_a_word_in_a_list_of_parts_is_found_too() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "a xylophone"}]}]
    async with open_gateway(toml=TOML, plugins=PLUGINS) as gateway:
        reply = await gateway.chat(messages=messages)
    assert reply.status == 400


async def test_a_longer_word_is_another_word() -> None:
    async with open_gateway(toml=TOML, plugins=PLUGINS) as gateway:
        reply = await gateway.chat("a xylophonist", stream=True)
    assert reply.status == 200
    assert reply.text() == "hello"


async def test_every_reply_is_stamped() -> None:
    async with open_gateway(toml=TOML, plugins=PLUGINS) as gateway:
        replies = [
            await gateway.chat("hello"),
            await gateway.chat("hello", stream=True),
            await gateway.chat("xylophone"),
            await gateway.chat("hello", model="unknown"),
            await gateway.get("/v1/models"),
        ]
    assert [reply.status for reply in replies] == [200, 200, 400, 404, 200]
    assert {reply.headers[HEADER] for reply in replies} == {"looked-at"}


async def test_without_settings_nothing_is_refused() -> None:
    async with open_gateway(plugins=PLUGINS) as gateway:
        reply = await gateway.chat("xylophone")
    assert reply.status == 200
    assert reply.headers[HEADER] == "checked"
