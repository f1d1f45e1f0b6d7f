"""Scrubbing by the tangent kernel: Golatkar et al. 2020b."""
