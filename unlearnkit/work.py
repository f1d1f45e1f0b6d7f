"""What work costs, in example-gradients: a forward and backward pass of one example is 1."""

from __future__ import annotations

FORWARD, BACKWARD, TANGENT = 1 / 3, 2 / 3, 1 / 3
"""Parts of an example-gradient; a tangent is what forward mode adds to a forward pass."""
PULL = FORWARD + BACKWARD
"""A vector-Jacobian product of one example; the gradient of its loss is one."""
PUSH = FORWARD + TANGENT
"""A Jacobian-vector product of one example."""
HVP = 2.0
"""A Hessian-vector product of one example."""
