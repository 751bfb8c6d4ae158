"""Refusals held back until something has been answered: where everything is refused, a setting is to blame."""

from bench.engines.base import RequestReplies

_TRIED = 24


class Refusals:
    """Of one call of ``Engine.answer``; proven: as in ``Settings``.

    ``held`` are the refusals so far, as long as nothing else has come. An engine whose ``held`` are not empty at the
    end, or are ``enough`` while nothing is under way, raises ConfigurationError and has yielded none of them.
    """

    def __init__(self, proven: bool) -> None:
        self.proven = proven
        self.held: list[RequestReplies] = []

    @property
    def enough(self) -> bool:
        """Whether no further request is to be tried."""
        return len(self.held) >= _TRIED

    def sift(self, answer: RequestReplies) -> list[RequestReplies]:
        """What may be yielded now that ``answer`` has come."""
        self.proven = self.proven or not _is_refusal(answer)
        self.held.append(answer)
        if not self.proven:
            return []
        ready, self.held = self.held, []
        return ready


def _is_refusal(answer: RequestReplies) -> bool:
    """Whether there is no sample in it: what a server filters it has not answered."""
    return all(reply.finish_reason == "error" for reply in answer.replies)
