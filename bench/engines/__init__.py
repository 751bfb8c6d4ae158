"""Engines that answer prompts with text and pictures."""

from bench.engines.base import Answer, Ask, Engine, Preparer, Reading, Reply, Settings, Swappable

__all__ = ["Answer", "Ask", "Engine", "Preparer", "Reading", "Reply", "Settings", "Swappable"]
