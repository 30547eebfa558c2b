"""Studies behind our claims, and what they found."""
