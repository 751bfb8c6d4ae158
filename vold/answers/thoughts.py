"""Separates the text of a response from the thoughts before it.

Changes of what counts as a thought need a new ``vold.answers.VERSION``.
"""

THINK = OPENING, CLOSING = "<think>", "</think>"


def spoken(response: str) -> str:
    """The response without its thoughts, which are the text between ``<think>`` and ``</think>``.

    A template may open the thought in the prompt. Everything before the first ``</think>`` is then a thought. A thought
    that is never closed runs to the end. Takes time linear in the length of the response.
    """
    if OPENING not in response and CLOSING not in response:
        return response
    *closed, rest = response.split(CLOSING)
    pieces: list[str] = []
    for piece in closed:
        before, opened, _ = piece.partition(OPENING)
        if opened:
            pieces.append(before)
        else:
            pieces.clear()
    return "".join([*pieces, rest.partition(OPENING)[0]])
