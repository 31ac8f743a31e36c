"""Visual token modules: tokenizers, transformer and projector (section 3 of the paper)."""
