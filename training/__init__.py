"""How the shipped world model was made; see training/README.md."""
