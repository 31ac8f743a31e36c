"""Tokenizers, transformer and projector (section 3 of the paper)."""
