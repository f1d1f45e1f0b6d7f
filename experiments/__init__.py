"""Thin scripts: a config, one call into the library, a table and a picture."""
