"""Use of trained models: prediction, sliding windows, token attention."""
