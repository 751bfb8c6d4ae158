"""What a response says, without what its model only thought."""

THINK = OPENING, CLOSING = "<think>", "</think>"


def spoken(response: str) -> str:
    """The response without its thoughts: what stands between ``<think>`` and ``</think>``.

    A template may open the thought in the prompt: then all up to the first ``</think>`` is thought. A thought that is
    never closed runs to the end. Linear in the response's length.
    """
    if OPENING not in response and CLOSING not in response:
        return response
    *closed, rest = response.split(CLOSING)
    said: list[str] = []
    for piece in closed:
        before, opened, _ = piece.partition(OPENING)
        if opened:
            said.append(before)
        else:
            said.clear()
    return "".join([*said, rest.partition(OPENING)[0]])
