"""Runs every test with the jaxtyping annotations of unlearnkit checked by beartype."""

from jaxtyping import install_import_hook

install_import_hook("unlearnkit", "beartype.beartype").__enter__()
