"""Oncestream measured beside what a user would write instead: ``make bench`` (docs/performance.md)."""
