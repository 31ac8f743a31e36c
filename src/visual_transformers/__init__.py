"""Train, test and compare Visual Transformers: images as a few semantic visual tokens (Wu et al., arXiv 2006.03677)."""

__version__ = "0.1.0"
