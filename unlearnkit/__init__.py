"""Machine unlearning, data poisoning, data forging and auditing as pure, compiled JAX functions."""

from unlearnkit.base import Dataset, Model, Normalisation, Task, Tokens, Unlearned, Variables

__version__ = "0.1.0"
__all__ = ["Dataset", "Model", "Normalisation", "Task", "Tokens", "Unlearned", "Variables"]
