"""Responses that wait for the table: found at once, bounded, forgotten once written."""

import pytest
import trio

from tollkeeper_responses import models
from tollkeeper_responses.models import Kept, Pending


def row(response_id: str = "r1", org: str = "default", response: str = "{}") -> Kept:
    return Kept(org, response_id, None, "[]", response, 1)


def test_what_waits_is_found_by_its_org_until_it_is_forgotten() -> None:
    pending = Pending()
    assert pending.add(row())
    assert pending.get("default", "r1") == row()
    assert pending.get("acme", "r1") is None
    assert pending.pop("default", "r1")
    assert not pending.pop("default", "r1")
    assert pending.get("default", "r1") is None


def test_what_was_written_is_forgotten_unless_something_took_its_place() -> None:
    pending = Pending()
    pending.add(row("r1"))
    pending.add(row("r2"))
    batch = pending.batch()
    assert [kept.id for kept in batch] == ["r1", "r2"]
    newer = row("r1", response='{"x":1}')
    pending.add(newer)
    pending.written(batch)
    assert pending.batch() == [newer]


def test_what_was_forgotten_while_it_was_written_does_not_come_back() -> None:
    pending = Pending()
    pending.add(row())
    batch = pending.batch()
    pending.pop("default", "r1")
    pending.written(batch)
    assert pending.batch() == []


def test_only_so_many_and_so_much_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MAX_PENDING", 3)
    monkeypatch.setattr(models, "MAX_PENDING_SIZE", 100)
    monkeypatch.setattr(models, "BATCH", 2)
    pending = Pending()
    assert pending.add(row("r1", response="x" * 90))
    assert not pending.add(row("r2", response="x" * 90))
    assert pending.pop("default", "r1")
    assert [pending.add(row(f"r{n}")) for n in range(4)] == [True, True, True, False]
    assert [kept.id for kept in pending.batch()] == ["r0", "r1"]


async def test_a_writer_waits_until_there_is_something(autojump_clock: object) -> None:
    pending = Pending()
    for _ in range(2):
        with trio.move_on_after(1) as waiting:
            await pending.wait_filled()
        assert waiting.cancelled_caught
        pending.add(row())
        await pending.wait_filled()
        pending.written(pending.batch())


def test_items_of_what_waits_are_found_by_their_org_as_long_as_it_waits() -> None:
    pending = Pending()
    older = row("r1")._replace(items=(("a", "old a"), ("b", "old b")))
    newer = row("r2")._replace(items=(("b", "new b"),))
    pending.add(older)
    pending.add(newer)
    ids = {"a", "b", "c"}
    assert pending.find_items("default", ids) == {"a": "old a", "b": "new b"}
    assert pending.find_items("acme", ids) == {}
    pending.written([older])
    assert pending.find_items("default", ids) == {"b": "new b"}
    pending.pop("default", "r2")
    assert pending.find_items("default", ids) == {}


def test_items_of_what_waits_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MAX_PENDING_SIZE", 100)
    assert not Pending().add(row()._replace(items=(("a", "x" * 100),)))
