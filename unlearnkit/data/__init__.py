"""Datasets from files, decoded once."""

from unlearnkit.data.loading import NAMES, NORMALISATIONS, SYMMETRIC, describe, load
from unlearnkit.data.source import Description

__all__ = ["NAMES", "NORMALISATIONS", "SYMMETRIC", "Description", "describe", "load"]
