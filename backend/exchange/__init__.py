"""Import and export formats, one file each: text in, plain records out. Only judged.py and keeping.py write to the database."""
