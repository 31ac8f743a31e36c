"""Read images, masks, name lists and downloads from disk."""
