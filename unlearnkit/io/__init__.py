"""Reading and writing: atomic files, the provenance of figures, escaped text."""
