"""How little a model expected each token of a text."""
