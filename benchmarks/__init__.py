"""Measurements of edgedr, each a program: ``python -m benchmarks.increments``, ``.startup``, ``.memory``."""
