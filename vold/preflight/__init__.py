"""Preflight: finds faults of a training run before it starts, from its files and settings alone.

There is one module per theme. Each check is a function that returns a list of findings.
"""
