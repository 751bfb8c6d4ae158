"""Evaluation: problems x samples -> responses -> verdicts -> tables, resumable."""
