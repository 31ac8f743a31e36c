"""The configuration: its schema, its validation, and the objects that it names."""
