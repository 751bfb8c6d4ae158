"""Batches as a function of the step."""

import pytest

from vold.data.samplers import draw


def test_every_epoch_visits_every_item_once_in_another_order() -> None:
    drawn = [index for step in range(20) for index in draw(1, "s", 10, 4, step)]
    epochs = [drawn[start : start + 10] for start in range(0, 80, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 8


def test_a_step_draws_the_same_items_regardless_of_earlier_draws() -> None:
    late = draw(5, "s", 100, 7, 31)
    for step in range(31):
        draw(5, "s", 100, 7, step)
    assert draw(5, "s", 100, 7, 31) == late


def test_seeds_and_streams_differ() -> None:
    assert len({tuple(draw(seed, stream, 50, 10, 0)) for seed in range(3) for stream in ("a", "b")}) == 6


def test_a_batch_may_be_larger_than_the_data() -> None:
    assert sorted(draw(1, "s", 3, 6, 0)) == [0, 0, 1, 1, 2, 2]


def test_nothing_to_draw_from_is_an_error() -> None:
    with pytest.raises(ValueError, match="no items to draw"):
        draw(1, "s", 0, 4, 0)
