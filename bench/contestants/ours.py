"""Oncestream's consumer, as it is deployed."""

from consumer.handler import handler

__all__ = ["handler"]
