"""Training of the text encoder on a shop's own texts and log: an ordinary model folder comes out."""
