"""Everything is in one slice, none of which is large."""

from hypothesis import given
from hypothesis import strategies as st

from tollkeeper._server.slices import slices


@given(st.sets(st.integers()), st.integers(1, 9))
def test_slices_hold_everything_once_and_are_of_a_like_size(items: set[int], size: int) -> None:
    found = slices(items, size)
    assert found
    assert sorted(item for some in found for item in some) == sorted(items)
    sizes = [len(some) for some in found]
    assert max(sizes) <= size
    assert not items or min(sizes) > 0
