"""tfwatch delivers finished transcription packages once, and can prove it."""

__version__ = "0.1.0"
