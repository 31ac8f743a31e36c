"""Files in the folder of a run or a sweep."""
