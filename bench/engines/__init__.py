"""Engines: models that answer prompts with text and images."""

from bench.engines.base import Decoding, Engine, Preparer, PromptReading, Reply, Request, RequestReplies, Swappable

__all__ = ["Decoding", "Engine", "Preparer", "PromptReading", "Reply", "Request", "RequestReplies", "Swappable"]
