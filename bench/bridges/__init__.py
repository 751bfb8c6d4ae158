"""Bridges to other evaluation suites: VLMEvalKit's scorers for our responses, and lm-eval's tasks for our engines."""
