"""Unlearning poisons: Pawelczyk et al. 2024."""
