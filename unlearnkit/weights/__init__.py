"""Weights from anywhere: read into a network's variables, and written back as they were."""

from unlearnkit.io.tensor_files import WeightsError
from unlearnkit.weights.containers import Container
from unlearnkit.weights.fitting import Entry, Fit, Misfit, fit
from unlearnkit.weights.layouts import Layout
from unlearnkit.weights.reading import WeightFile, read_container, read_weights, write_weights

__all__ = [
    "Container",
    "Entry",
    "Fit",
    "Layout",
    "Misfit",
    "WeightFile",
    "WeightsError",
    "fit",
    "read_container",
    "read_weights",
    "write_weights",
]
