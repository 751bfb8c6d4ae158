"""Evaluation: problems are sent to a model, its responses are logged and scored, and tables are written."""
