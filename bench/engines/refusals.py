"""Refusals are held back until something was answered. If everything is refused, a setting is at fault."""

from bench.engines.base import RequestReplies

_TRIED = 24


class Refusals:
    """The refusals of one call of ``Engine.answer``. proven: as in ``Decoding``.

    ``pending`` holds the refusals until the first request is answered. If refusals are still pending at the end, or
    there are ``enough`` and no request is running, the engine raises ConfigurationError instead of yielding them.
    """

    def __init__(self, proven: bool) -> None:
        self.proven = proven
        self.pending: list[RequestReplies] = []

    @property
    def enough(self) -> bool:
        """Whether to stop sending requests."""
        return len(self.pending) >= _TRIED

    def release(self, result: RequestReplies) -> list[RequestReplies]:
        """The results that may be yielded now that ``result`` has come."""
        self.proven = self.proven or not _is_refusal(result)
        self.pending.append(result)
        if not self.proven:
            return []
        ready, self.pending = self.pending, []
        return ready


def _is_refusal(result: RequestReplies) -> bool:
    """Whether the result has no sample. A reply that a server filtered does not count as an answer."""
    return all(reply.finish_reason == "error" for reply in result.replies)
