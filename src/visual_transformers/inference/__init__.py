"""Use of a trained model: prediction, windows, attention of tokens."""
