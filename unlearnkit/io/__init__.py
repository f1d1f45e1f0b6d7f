"""Reading and writing: whole files, where a figure comes from, text for a terminal."""
