"""Measure what Mixture-of-Depths saves: scenarios in, records and reports out."""

__version__ = "0.1.0"
