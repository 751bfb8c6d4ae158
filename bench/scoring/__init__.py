"""Scoring of responses: strict and official verdicts, prediction files, and a judge model."""
