"""The boxes in a text, compared with a parser that reads one character at a time."""

import random

from vold.answers.extract import claims

PIECES = ("{", "}", "{{", "}}}", r"\boxed{", r"\fbox {", r"\{", r"\}", "7", "x", r"\boxed", r"\text{")


def boxes(text: str) -> list[str]:
    """Contents of the closed boxes, from the last to close to the first."""
    closed: list[tuple[int, str]] = []
    opened: list[int | None] = []
    at = 0
    while at < len(text):
        box = next((mark for mark in (r"\boxed{", r"\fbox {") if text.startswith(mark, at)), "")
        if not box and text[at] == "\\" and text[at + 1 : at + 2] in ("{", "}"):
            at += 2
            continue
        if box:
            opened.append(at + len(box))
        elif text[at] == "{":
            opened.append(None)
        elif text[at] == "}" and opened and (start := opened.pop()) is not None:
            closed.append((at, text[start:at]))
        at += len(box) or 1
    return [content for _, content in sorted(closed, reverse=True) if content.strip()]


def test_boxes_are_found_with_any_text_around_and_inside_them() -> None:
    source, total = random.Random(5), 0
    for _ in range(5000):
        text = "".join(source.choices(PIECES, k=source.randint(1, 14)))
        contents = [claim.text for claim in claims(text) if claim.method == "boxed"]
        assert contents == boxes(text), text
        total += len(contents)
    assert total > 1000
