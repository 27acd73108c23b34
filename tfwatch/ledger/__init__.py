"""The log, and what its facts add up to: an append-only, hash-chained CSV file and its projection in SQLite."""
