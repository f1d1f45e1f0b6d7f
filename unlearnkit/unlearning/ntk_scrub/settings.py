"""How the linearised problem is solved: its options, and which form fits into memory."""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple, get_args

from unlearnkit import costs
from unlearnkit.kernels import Precision
from unlearnkit.kernels.ntk import held_bytes
from unlearnkit.validation import check_above, check_at_least, check_choice, check_known

LossName = Literal["l2", "softmax"]
FormName = Literal["auto", "dense", "stored", "matrix_free", "blocks", "public"]
StoreName = Literal["full", "bfloat16"]
OF_KERNEL = ("dense", "blocks", "public")
"""The forms that hold Θ [n c, n c]."""
DENSE_OUTPUTS = 15_000
"""n c up to which `auto` holds Θ: a kernel of 0.9 GB in float32."""
SMALL_OUTPUTS = 2500
"""n c up to which `auto` holds Θ first: measured, its products are soon made and cheap."""
MEMORY_SHARE = 0.6
"""Of the memory that is free, which `auto` takes at most."""
COPIES = {"dense": 2, "blocks": 4, "public": 3}
"""Of Θ that a form holds at its most: Θ itself, and its factors."""
BLOCK_BYTES = 2**29
"""Jacobians of one block, two of which are contracted into a part of Θ."""


class Form(NamedTuple):
    """The form that is taken.

    Attributes:
      name: of the form, never `auto`.
      store: how J is stored, where it is.
      why: in words.
    """

    name: FormName
    store: StoreName
    why: str


class Size(NamedTuple):
    """How large a problem is.

    Attributes:
      examples: N.
      outputs: c.
      weights: p.
      itemsize: bytes of a number.
    """

    examples: int
    outputs: int
    weights: int
    itemsize: int

    @property
    def kernel_bytes(self) -> int:
        """Of Θ."""
        return (self.examples * self.outputs) ** 2 * self.itemsize

    def jacobian_bytes(self, store: StoreName) -> int:
        """Of J."""
        itemsize = 2 if store == "bfloat16" else self.itemsize
        return self.examples * self.outputs * self.weights * itemsize

    @property
    def kernel_passes(self) -> float:
        """How often an example's Jacobian is made for Θ: more than once where J is not held."""
        if self.jacobian_bytes("full") <= held_bytes():
            return 1.0
        blocks = -(-self.examples // self.block)
        return (blocks + 1) / 2

    @property
    def block(self) -> int:
        """Examples whose Jacobians are a block of at most `BLOCK_BYTES`, 64 at most."""
        of_one = self.outputs * self.weights * self.itemsize
        return max(1, min(64, self.examples, BLOCK_BYTES // of_one))


@dataclasses.dataclass(frozen=True)
class NtkSettings:
    """How the linearised problem is solved.

    Attributes:
      loss: `softmax` cross-entropy, the convex problem solved by Newton-CG; or `l2`,
        1/2 ‖f - onehot‖², which has a closed form.
      form: what is held of the Jacobian J [n c, p] and the kernel Θ = J Jᵀ.
        `stored`: J, by one backward pass per output, and then no product needs the network;
        `dense`: Θ, for which J is needed in blocks only; `matrix_free`: neither, a product being a
        forward and a backward pass over all examples. They solve the same problem, and `auto` takes
        the first of them that fits, see `choose_form`. `blocks` holds Θ and computes the P, M and V
        of equation (10), under the L2 loss. `public` is the algorithm of the public code, see
        `NtkScrub`, which is made for fine-tuning with the softmax.
      store: J of the stored form in `full` precision or as `bfloat16`, which takes half of the
        memory; residuals are then computed by the network.
      weight_decay: λ of the fine-tuning's (λ/2)‖w - c‖².
      tol: relative residual of each solve.
      max_steps: the most steps of a solve by conjugate gradients.
      newton_steps: the most Newton steps (softmax).
      rank: of the preconditioner, which holds n c rank numbers, `sketched_ntk` or the same from the
        stored J; 0 for none. The dense form has a factor of Θ in its place under the L2 loss, and
        needs none with the softmax.
      chunk: examples at a time in products; memory does not grow with the data.
      jacobian_chunk: examples at a time whose Jacobians are held, c p numbers each.
      precision: of the products with the Jacobian; below `highest` an accelerator is faster, and
        the residual that can be reached grows.
    """

    loss: LossName = "softmax"
    form: FormName = "auto"
    store: StoreName = "full"
    weight_decay: float = 0.1
    tol: float = 1e-4
    max_steps: int = 1000
    newton_steps: int = 30
    rank: int = 2048
    chunk: int = 100
    jacobian_chunk: int = 8
    precision: Precision = "highest"

    def __post_init__(self) -> None:
        check_known("loss", self.loss, get_args(LossName))
        check_known("form", self.form, get_args(FormName))
        check_known("store", self.store, get_args(StoreName))
        check_choice("precision", self.precision, Precision)
        for form, loss, what in (
            ("blocks", "l2", "is a closed form of the L2 loss"),
            ("public", "softmax", "takes the errors of the softmax for those of the L2 loss"),
        ):
            if self.form == form and self.loss != loss:
                raise ValueError(
                    f"form={form!r} {what}, got loss={self.loss!r}; choose loss={loss!r}, or one "
                    "of the forms that have both losses: auto, dense, stored, matrix_free"
                )
        if self.store != "full" and self.form not in ("auto", "stored"):
            raise ValueError(
                f"store={self.store!r} is of form='stored', which holds J, got form={self.form!r}"
            )
        check_at_least(self, 0, "weight_decay")
        check_above(self, 0, "tol")
        check_at_least(self, 0, "rank")
        if self.weight_decay == 0 and (self.loss == "softmax" or self.preconditioned):
            raise ValueError(
                "weight_decay must be > 0 for the preconditioner and for loss='softmax', got 0; "
                "set rank=0, or a small decay"
            )
        check_at_least(self, 1, "max_steps", "newton_steps", "chunk", "jacobian_chunk")

    @property
    def preconditioned(self) -> bool:
        """Whether the Jacobians are sketched, or under the L2 loss the kernel is factorised."""
        return self.form not in ("blocks", "public") and self.rank > 0

    def settings(self) -> NtkSettings:
        """Returns these settings alone, so that what builds on them shares their compilation."""
        names = (field.name for field in dataclasses.fields(NtkSettings))
        return NtkSettings(**{name: getattr(self, name) for name in names})


def choose_form(settings: NtkSettings, size: Size, *, free: int | None = None) -> Form:
    """Returns the form that is taken for a problem.

    `auto` takes `dense` where n c is at most the rank, so that Θ is no larger than a sketch of it,
    or at most `SMALL_OUTPUTS`; then the first that fits into `MEMORY_SHARE` of the free memory:
    `stored`; `dense`, up to `DENSE_OUTPUTS` outputs; `matrix_free`. The stored form comes before
    it since its products, 4 n c p operations each, are few: Θ alone takes (n c)² p. Any other form
    is taken as it is.

    Args:
      settings: of the method.
      size: of the problem.
      free: bytes; None asks the system, and where it does not say everything fits.

    Raises:
      ValueError: a form that was asked for does not fit into the free memory.
    """
    numbers = size.examples * size.outputs
    limit = costs.available_bytes() if free is None else free
    needs = {name: copies * size.kernel_bytes for name, copies in COPIES.items()}
    sketch = settings.rank * numbers * size.itemsize
    stores: dict[StoreName, int] = {
        name: size.jacobian_bytes(name) + sketch for name in get_args(StoreName)
    }

    def fits(needed: int, share: float = MEMORY_SHARE) -> bool:
        return limit is None or needed <= share * limit

    if settings.form == "stored":
        _check_fits("J", "stored", size, stores[settings.store], limit)
        return Form("stored", settings.store, "asked for")
    if settings.form in OF_KERNEL:
        _check_fits("Θ", settings.form, size, needs[settings.form], limit)
        return Form(settings.form, "full", "asked for")
    if settings.form == "matrix_free":
        return Form("matrix_free", "full", "asked for")
    small = max(settings.rank, SMALL_OUTPUTS)
    if numbers <= small and fits(needs["dense"]):
        return Form("dense", "full", f"n c is {numbers:,}, at most {small:,}")
    if fits(stores[settings.store]):
        told = stores[settings.store] / 1e9
        return Form("stored", settings.store, f"J and its sketch take {told:.2g} GB")
    if numbers <= DENSE_OUTPUTS and fits(needs["dense"] + 2 * BLOCK_BYTES):
        return Form("dense", "full", f"J does not fit, Θ takes {size.kernel_bytes / 1e9:.2g} GB")
    return Form("matrix_free", "full", f"J does not fit, and n c is {numbers:,}")


def _check_fits(what: str, form: str, size: Size, needed: int, limit: int | None) -> None:
    if limit is not None and needed > limit:
        remedy = (
            "form='auto', store='bfloat16' or form='matrix_free'"
            if what == "J"
            else ("form='stored' or form='matrix_free'")
        )
        raise ValueError(
            f"form={form!r} holds {what} of {size.examples:,} examples with {size.outputs} outputs "
            f"and {size.weights:,} weights: {needed / 1e9:.3g} GB, and {limit / 1e9:.3g} GB are "
            f"free; choose {remedy}, or fewer examples"
        )
