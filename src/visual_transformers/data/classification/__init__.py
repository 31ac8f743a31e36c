"""Data sets with one class per image."""
