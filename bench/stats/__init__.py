"""Intervals, paired tests, power and verdicts."""
