"""Untrusted text, escaped for a terminal."""

from __future__ import annotations


def escaped(text: str, at_most: int = 200) -> str:
    r"""Returns untrusted text as one line that cannot steer a terminal.

    Control characters, line ends and marks that turn the direction of writing become escapes as
    `\x1b`, and what is beyond `at_most` characters is cut off.
    """
    kept = text if len(text) <= at_most else f"{text[:at_most]}…"
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in kept
    )
