"""Finished evaluations: find them, compare them, look at single problems, judge them again."""
