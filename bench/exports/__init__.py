"""A finished evaluation in the formats of other tools."""

from bench.exports.formats import FORMATS, export

__all__ = ["FORMATS", "export"]
