"""Training states and weight files."""
