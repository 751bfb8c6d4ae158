"""Preflight: what is wrong with a training run, found before anything is spent, from files and settings alone.

One module a theme; each check is a function from what was read to a list of findings.
"""
