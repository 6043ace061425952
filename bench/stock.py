"""The forwarder that the stock parts make: Quart-Trio, httpx and hypercorn, with a key check.

What tollkeeper is measured beside. `python stock.py PORT UPSTREAM_URL KEY`
"""

import sys

import httpx
import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from quart import Response, request
from quart_trio import QuartTrio

port, upstream, key = sys.argv[1:]
app = QuartTrio(__name__)
app.config["RESPONSE_TIMEOUT"] = None
client = httpx.AsyncClient(
    limits=httpx.Limits(max_connections=10_000, max_keepalive_connections=10_000), timeout=600
)


@app.post("/v1/chat/completions")
async def chat() -> Response:
    """Forward a call, streamed or not."""
    if request.headers.get("authorization") != f"Bearer {key}":
        return Response(b'{"error":{"message":"no"}}', 401)
    body = await request.get_data()
    call = client.build_request(
        "POST", f"{upstream}/chat/completions", content=body, headers={"authorization": "Bearer x"}
    )
    reply = await client.send(call, stream=True)
    if "event-stream" not in reply.headers["content-type"]:
        content = await reply.aread()
        return Response(content, reply.status_code, content_type="application/json")

    async def chunks() -> object:
        async for chunk in reply.aiter_raw():
            yield chunk
        await reply.aclose()

    return Response(chunks(), reply.status_code, content_type="text/event-stream")


config = Config()
config.bind = [f"127.0.0.1:{port}"]
config.keep_alive_max_requests = 10_000_000
config.accesslog = config.errorlog = None
trio.run(serve, app, config)
