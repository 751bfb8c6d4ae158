"""Text of models, servers and data files on a terminal: shown, never obeyed."""

import unicodedata


def printable(text: str) -> str:
    r"""``text`` with control and direction characters as ``\x1b``: a terminal shows them and does not obey them."""
    return "".join(
        sign if sign in "\n\t" or not unicodedata.category(sign).startswith("C") else _escaped(sign) for sign in text
    )


def _escaped(sign: str) -> str:
    code = ord(sign)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def clock(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    minutes, second = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{second:02d}" if hours else f"{minutes}:{second:02d}"
