"""Item texts to vectors."""
