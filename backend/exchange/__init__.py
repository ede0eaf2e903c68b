"""Import and export formats, one file each: text in, plain records out; nothing here writes to the database."""
