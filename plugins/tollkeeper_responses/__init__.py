"""OpenAI's Responses API for clients: `/v1/responses`.

At a provider that speaks it bytes pass through; for others a request is turned into a chat, and
its reply back. With `store` on, responses are kept here, whoever made them.
"""

import logging
from collections.abc import Callable, Iterable
from functools import partial

import trio

from tollkeeper import (
    Answer,
    Event,
    Exchange,
    Gateway,
    Refused,
    Tap,
    hookimpl,
    invalid_request,
    quote,
    replace_value,
)
from tollkeeper.jsongate import read_object
from tollkeeper_responses import service
from tollkeeper_responses.models import Kept, Pending, WriteError
from tollkeeper_responses.request import continued, references, resolved
from tollkeeper_responses.routes import (
    DELETE,
    RETRIEVE,
    create_operation,
    deleted,
    input_page,
    response_in,
)
from tollkeeper_responses.service import Holding
from tollkeeper_responses.settings import ResponsesSettings

log = logging.getLogger("tollkeeper")

NAME = "responses"
DAY = 86_400
SWEEP_SECONDS = 3600
"""How often old responses are deleted."""
RETRY_SECONDS = 1
DRAIN_SECONDS = 10
"""How long a stop waits for what is not written yet."""


class Responses:
    """Guard: it carries the request."""

    Settings = ResponsesSettings
    policy = "guard"

    def __init__(self, settings: ResponsesSettings) -> None:
        self._settings = settings
        self._pending = Pending()

    @hookimpl
    def register(self, gateway: Gateway) -> None:
        """Add the operations."""
        self._database, self._clock = gateway.database, gateway.clock
        gateway.add_operation(create_operation(gateway.clock, keeps=self._settings.store))
        gateway.add_operation(RETRIEVE)
        gateway.add_operation(DELETE)

    @hookimpl
    async def run(self, task_status: trio.TaskStatus[None]) -> None:
        """Write what is to be kept and delete what is old, for as long as the plugin lives."""
        task_status.started()
        try:
            while True:
                oldest = int(self._clock.time()) - self._settings.keep_days * DAY
                await self._written(service.delete_older, oldest)
                with trio.move_on_after(SWEEP_SECONDS):
                    await self._write_forever()
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + DRAIN_SECONDS):
                while self._pending.batch() and await self._write_batch():
                    pass

    async def _write_forever(self) -> None:
        while True:
            await self._pending.wait_filled()
            if not await self._write_batch():
                await trio.sleep(RETRY_SECONDS)

    async def _write_batch(self) -> bool:
        rows = self._pending.batch()
        is_written = await self._written(service.save, rows)
        if is_written:
            self._pending.written(rows)
        return is_written

    async def _written(self, work: Callable[..., object], *args: object) -> bool:
        try:
            await self._database.write(work, *args)
        except WriteError:
            log.exception("the database does not take kept responses; they wait")
            return False
        return True

    @hookimpl(tryfirst=True)
    async def transform_request(self, exchange: Exchange) -> bytes | None:
        """Put what is kept in the place of `previous_response_id` and of items' ids."""
        if exchange.operation.name != NAME or not self._settings.store:
            return None
        # What is kept will be read by others than its first reader: strictly, then.
        document = read_object(exchange.body)
        body = await self._resolved(exchange, references(document.get("input")))
        previous, prepended = document.get("previous_response_id"), 0
        if previous is not None:
            chain = await self._chain(exchange.principal.org, str(previous))
            body, prepended = continued(body, chain)
        exchange.holds[NAME] = Holding(document.get("store") is not False, previous, prepended)
        return body

    async def _resolved(self, exchange: Exchange, asked: dict[int, str]) -> bytes:
        """The request with kept items in the place of their ids."""
        if not asked:
            return exchange.body
        org, ids = exchange.principal.org, set(asked.values())
        found = self._pending.find_items(org, ids)
        if lost := ids - found.keys():
            found |= await self._database.read(service.find_items, org, list(lost))
        return resolved(exchange.body, asked, found)

    async def _chain(self, org: str, response_id: str) -> list[Kept]:
        """What a request builds on, the newest first. Raises `Refused` where a part is lost."""
        chain: list[Kept] = []
        following: str | None = response_id
        while following is not None and len(chain) < service.MAX_LINKS:
            if (row := self._pending.get(org, following)) is None:
                chain += await self._database.read(service.find_chain, org, following)
                break
            chain.append(row)
            following = row.previous
        if not chain or chain[-1].previous is not None:
            message = f"The previous response '{response_id[:100]}' is not kept here as a whole."
            raise invalid_request(message, param="previous_response_id")
        return chain

    @hookimpl
    async def respond(self, exchange: Exchange) -> Answer | None:
        """Read or delete what is kept."""
        name, org = exchange.operation.name, exchange.principal.org
        if name not in (RETRIEVE.name, DELETE.name):
            return None
        response_id, _, rest = exchange.path_value.partition("/")
        if not self._settings.store:
            raise Refused(404, "not_found", "Responses are not kept here: storing is off.")
        if name == DELETE.name and not rest and await self._delete(org, response_id):
            return deleted(response_id)
        if name == RETRIEVE.name and rest in ("", "input_items"):
            kept = await self._find(org, response_id)
            if kept is not None:
                return input_page(kept) if rest else Answer(kept.response.encode())
        raise Refused(404, "not_found", f"No response '{exchange.path_value[:100]}' is kept here.")

    async def _find(self, org: str, response_id: str) -> Kept | None:
        waiting = self._pending.get(org, response_id)
        return waiting or await self._database.read(service.find, org, response_id)

    async def _delete(self, org: str, response_id: str) -> bool:
        # Written behind what is being written now, so that nothing comes back.
        waiting = self._pending.pop(org, response_id)
        return await self._database.write(service.delete, org, response_id) or waiting

    @hookimpl(trylast=True)
    def tap(self, exchange: Exchange) -> Tap | None:
        """Keep the response as the client gets it, and show what it builds on."""
        held = exchange.holds.get(NAME)
        if not isinstance(held, Holding) or not (held.keeps or held.previous):
            return None
        return partial(self._pass, exchange, held)

    def _pass(self, exchange: Exchange, held: Holding, event: Event | None) -> Iterable[Event]:
        if event is None:
            return ()
        if (span := response_in(event.data)) is None:
            return (event,)
        (start, end), data = span, event.data
        response = data[start:end]
        if held.previous is not None:
            response = replace_value(response, b"previous_response_id", quote(held.previous))
            event = Event(data[:start] + response + data[end:])
        if held.keeps:
            self._keep(exchange, held, response)
        return (event,)

    def _keep(self, exchange: Exchange, held: Holding, response: bytes) -> None:
        org, now = exchange.principal.org, int(self._clock.time())
        kept = service.kept_of(org, held, exchange.body, response, now)
        if kept is not None and not self._pending.add(kept):
            log.error("%s: too many responses wait for the database; not kept", exchange.id)

    @hookimpl
    def settle(self, exchange: Exchange) -> None:
        """Forget the request."""
        exchange.holds.pop(NAME, None)
