"""Measuring few-shot templates: what is asked, how it is asked part by part, and what it comes to."""
