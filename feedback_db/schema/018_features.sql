-- What a base says of a text: its embedding. Kept by the base's fingerprint and the text, so that a text is read once.
CREATE TABLE features (
  digest BLOB PRIMARY KEY CHECK (length(digest) = 32),                    -- SHA-256 of the fingerprint's 32 bytes and the text
  vector BLOB NOT NULL,                                                   -- 32-bit floats, little-endian, of length 1
  created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
