"""Bridges to other evaluation suites: their scorers on our responses, their task interface on our engines."""
