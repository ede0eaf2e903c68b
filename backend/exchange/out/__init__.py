"""Exports, one file per format: a sheet in, text out. Nothing here reads the database."""
