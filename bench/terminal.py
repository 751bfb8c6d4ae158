"""Safe printing of text from models, servers and data files, and durations."""

import unicodedata


def printable(text: str) -> str:
    r"""``text`` with control and direction characters written as ``\x1b``, so that a terminal does not act on them."""
    return "".join(
        sign if sign in "\n\t" or not unicodedata.category(sign).startswith("C") else _escaped(sign) for sign in text
    )


def _escaped(sign: str) -> str:
    code = ord(sign)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def clock(seconds: float) -> str:
    """Seconds as ``1:02:03``, or as ``2:03`` below one hour."""
    hours, rest = divmod(max(0, round(seconds)), 3600)
    minutes, second = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{second:02d}" if hours else f"{minutes}:{second:02d}"
