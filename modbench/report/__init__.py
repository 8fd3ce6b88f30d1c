"""Summaries as console tables, Markdown, HTML and plots: formatting only, nothing is computed here but text."""
