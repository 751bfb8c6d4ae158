"""Work beside an engine: in order, all of it done at the end, errors told."""

from threading import Event, Timer

import pytest

from bench.evaluation.background import Beside


def fails(item: int) -> None:
    raise OSError("broken")


def test_everything_is_done_in_order_when_the_block_is_left() -> None:
    done: list[int] = []
    with Beside(done.append) as beside:
        for number in range(5000):  # more than may wait
            beside.put(number)
    assert done == list(range(5000))


def test_whoever_puts_goes_on_while_an_item_takes_long() -> None:
    go_on, done = Event(), list[int]()

    def work(item: int) -> None:
        assert go_on.wait(10)
        done.append(item)

    with Beside(work) as beside:
        for number in range(100):
            beside.put(number)
        assert done == []
        go_on.set()
    assert len(done) == 100


def test_an_error_of_the_work_comes_out_at_the_next_item_and_the_rest_is_dropped() -> None:
    failed, done = Event(), list[int]()

    def work(item: int) -> None:
        if item == 1:
            failed.set()
            raise OSError("broken")
        done.append(item)

    with pytest.raises(OSError, match="broken"), Beside(work) as beside:
        beside.put(0)
        beside.put(1)
        assert failed.wait(10)
        while True:
            beside.put(2)
    assert done == [0]


def test_an_error_of_the_work_comes_out_at_the_end_at_the_latest() -> None:
    with pytest.raises(OSError, match="broken"), Beside(fails) as beside:
        beside.put(0)


def test_an_error_of_the_work_is_told_though_there_is_another_which_is_its_cause() -> None:
    with pytest.raises(OSError, match="broken") as told, Beside(fails) as beside:
        beside.put(0)
        raise RuntimeError("the engine broke")
    assert str(told.value.__cause__) == "the engine broke"


def test_an_interrupt_stays_one_though_the_work_failed() -> None:
    with pytest.raises(KeyboardInterrupt), Beside(fails) as beside:
        beside.put(0)
        raise KeyboardInterrupt


def test_after_an_error_elsewhere_what_was_put_is_done_all_the_same() -> None:
    go_on, done = Event(), list[int]()

    def work(item: int) -> None:
        assert go_on.wait(10)
        done.append(item)

    with pytest.raises(KeyboardInterrupt), Beside(work) as beside:
        for number in range(3):
            beside.put(number)
        Timer(0.2, go_on.set).start()
        raise KeyboardInterrupt
    assert done == [0, 1, 2]
