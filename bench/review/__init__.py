"""Finished evaluations: find and compare them, show single problems, and ask a judge about responses."""
