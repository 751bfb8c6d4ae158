"""Engines that answer prompts with text and pictures."""

from bench.engines.base import Engine, Prompt, Reply, Settings

__all__ = ["Engine", "Prompt", "Reply", "Settings"]
