"""Child processes: they end together with their parent, and the parent reads their messages."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any


def end_with_parent(*, group: bool) -> None:
    """From now on, kill this process as soon as its parent has ended, even if the parent was killed.

    A process that multiprocessing started watches its parent. Any other program watches its standard input, which the
    parent must keep open.

    group: kill the whole process group, so that the processes that this one started end as well. The process must be
    the leader of its group; otherwise its parent's group would be killed.
    """

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
        else:
            sys.stdin.buffer.read()
        if group:
            os.killpg(0, signal.SIGKILL)
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def received(pipe: Connection) -> Iterator[Any]:
    """The messages that have arrived, without waiting for more. Closes ``pipe`` when its other end is closed."""
    try:
        while not pipe.closed and pipe.poll():
            yield pipe.recv()
    except (EOFError, OSError):
        pipe.close()
