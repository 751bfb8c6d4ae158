"""A finished evaluation in the forms that other tools read."""

from bench.exports.formats import FORMATS, export

__all__ = ["FORMATS", "export"]
