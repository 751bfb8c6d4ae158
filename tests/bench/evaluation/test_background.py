"""Work in a background thread: in order, finished at the end, and with its errors raised."""

from threading import Event, Timer

import pytest

from bench.evaluation.background import BackgroundWorker


def fails(value: int) -> None:
    raise OSError("broken")


def test_everything_is_done_in_order_when_the_block_is_left() -> None:
    done: list[int] = []
    with BackgroundWorker(done.append) as worker:
        for number in range(5000):  # more than may wait
            worker.put(number)
    assert done == list(range(5000))


def test_put_does_not_wait_for_slow_work() -> None:
    resume, done = Event(), list[int]()

    def work(value: int) -> None:
        assert resume.wait(10)
        done.append(value)

    with BackgroundWorker(work) as worker:
        for number in range(100):
            worker.put(number)
        assert done == []
        resume.set()
    assert len(done) == 100


def test_an_error_of_the_work_is_raised_by_the_next_put_and_the_rest_is_dropped() -> None:
    failed, done = Event(), list[int]()

    def work(value: int) -> None:
        if value == 1:
            failed.set()
            raise OSError("broken")
        done.append(value)

    with pytest.raises(OSError, match="broken"), BackgroundWorker(work) as worker:
        worker.put(0)
        worker.put(1)
        assert failed.wait(10)
        while True:
            worker.put(2)
    assert done == [0]


def test_an_error_of_the_work_is_raised_at_the_end_at_the_latest() -> None:
    with pytest.raises(OSError, match="broken"), BackgroundWorker(fails) as worker:
        worker.put(0)


def test_an_error_of_the_work_is_raised_with_another_error_as_its_cause() -> None:
    with pytest.raises(OSError, match="broken") as raised, BackgroundWorker(fails) as worker:
        worker.put(0)
        raise RuntimeError("the engine broke")
    assert str(raised.value.__cause__) == "the engine broke"


def test_an_interrupt_is_raised_even_if_the_work_failed() -> None:
    with pytest.raises(KeyboardInterrupt), BackgroundWorker(fails) as worker:
        worker.put(0)
        raise KeyboardInterrupt


def test_queued_work_is_finished_after_an_error_elsewhere() -> None:
    resume, done = Event(), list[int]()

    def work(value: int) -> None:
        assert resume.wait(10)
        done.append(value)

    with pytest.raises(KeyboardInterrupt), BackgroundWorker(work) as worker:
        for number in range(3):
            worker.put(number)
        Timer(0.2, resume.set).start()
        raise KeyboardInterrupt
    assert done == [0, 1, 2]
