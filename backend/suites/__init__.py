"""Suites: cases with checks, versioned; what an answer is worth, and which template or model does better.

``checks`` reads what is asked of an answer, ``kinds`` knows every check, ``scoring`` makes one score of several.
"""
