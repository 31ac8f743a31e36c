"""Data sets with one mask per image."""
