"""Measurements against peers: ``python -m bench NAME [--quick]``."""
