"""Files: images, lists, names and downloads."""
