"""Numbers as text. Every number of a report is formatted here, so page, Markdown, CSV and JSON agree on every digit."""

from collections.abc import Callable
from math import isfinite

NONE = "–"


def percent(share: float) -> str:
    """A share in [0, 1] as per cent, one decimal: 0.5234 -> 52.3."""
    return _fixed(100 * share, 1)


def points(difference: float, signed: bool = True) -> str:
    """A difference of shares in percentage points, one decimal, with its sign: 0.023 -> +2.3."""
    text = _fixed(100 * difference, 1)
    return f"+{text}" if signed and isfinite(difference) and float(text) > 0 else text


def interval(low: float, high: float, signed: bool = False) -> str:
    """Both ends of an interval of shares: [0.4, 4.2]."""
    if signed:
        return f"[{points(low)}, {points(high)}]"
    return f"[{percent(low)}, {percent(high)}]"


def interval_cells(low: float, high: float, text: Callable[[float], str] = percent) -> dict[str, str]:
    """The cells of the columns ``INTERVAL``; ``text`` formats each end."""
    return {"low": text(low), "high": text(high)}


def p_value(p: float) -> str:
    """A p-value with three decimals; never 0."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def decimal(value: float, places: int = 3) -> str:
    """A number that is not a share, such as a KL in nats."""
    return _fixed(value, places)


def _fixed(value: float, places: int) -> str:
    if not isfinite(value):
        return NONE
    # A sum in another order differs in its last bits, which would decide a tie such as 58.75. Round them off first.
    text = f"{round(value, 9):.{places}f}"
    return text.removeprefix("-") if float(text) == 0 else text
