"""A link proves its row and all rows before it."""

import hashlib

import pytest

from tollkeeper_metering.chain import GENESIS, link

ROW = ("hold", 1, 1, 1, "att_1", "req_1", 1, "acme", "", "m", "p/m", "toml:1", 100, 1780000000)


def test_a_link_is_the_hash_of_the_one_before_and_the_row_as_json() -> None:
    expected = hashlib.sha256(bytes(32) + b'["hold",1,"\xc3\xa9"]').digest()
    assert link(GENESIS, ("hold", 1, "é")) == expected


@pytest.mark.parametrize("column", range(len(ROW)))
def test_a_change_of_any_column_is_another_link(column: int) -> None:
    value = ROW[column]
    changed = value + 1 if isinstance(value, int) else value + "x"
    row = (*ROW[:column], changed, *ROW[column + 1 :])
    assert link(GENESIS, row) != link(GENESIS, ROW)


def test_a_number_and_its_text_are_not_the_same() -> None:
    assert link(GENESIS, ("entry", 1)) != link(GENESIS, ("entry", "1"))


def test_what_stands_in_one_column_cannot_move_into_the_next() -> None:
    assert link(GENESIS, ("ab", "c")) != link(GENESIS, ("a", "bc"))
    assert link(GENESIS, ('a","b', "c")) != link(GENESIS, ("a", 'b","c'))


def test_the_same_row_behind_another_is_another_link() -> None:
    first = link(GENESIS, ROW)
    assert link(first, ROW) != first
    assert len(first) == len(GENESIS) == 32
