"""A feed: never waits, keeps the order, hands on what drawing raised, and stops drawing when it is left."""

import time
from collections.abc import Iterator

import pytest

from bench.engines.feeding import Feed


def counted(drawn: list[int], number: int, seconds: float = 0.0) -> Iterator[int]:
    for item in range(number):
        time.sleep(seconds)
        drawn.append(item)
        yield item


def test_items_come_in_order_and_none_where_none_is_ready() -> None:
    with Feed(counted([], 5, 0.05), 2) as feed:
        found = list(feed)
    assert [item for item in found if item is not None] == [0, 1, 2, 3, 4]
    assert None in found


def test_what_drawing_raises_is_raised_where_the_items_are_taken() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise ValueError("no more of these")

    with Feed(failing(), 2) as feed, pytest.raises(ValueError, match="no more of these"):
        list(feed)


def test_no_more_is_drawn_than_may_wait_and_nothing_after_it_is_left() -> None:
    drawn: list[int] = []
    with Feed(counted(drawn, 100), 3) as feed:
        time.sleep(0.3)
        assert len(drawn) == 4  # three wait, one is at hand
        assert next(item for item in feed if item is not None) == 0
    left = len(drawn)
    time.sleep(0.2)
    assert len(drawn) == left < 100
