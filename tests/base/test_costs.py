import jax
import jax.numpy as jnp
import pytest

from unlearnkit.costs import device_bytes, largest_batch, program_bytes, program_flops


def test_a_program_takes_its_temporaries_and_outputs():
    product = jax.jit(lambda x: x @ x.T)
    shape = jax.ShapeDtypeStruct((64, 8), jnp.float32)
    assert program_bytes(product, shape) >= 64 * 64 * 4
    # Donated, an output takes the place of its argument.
    donating = jax.jit(lambda x: x + 1, donate_argnums=0)
    assert program_bytes(donating, shape) < 64 * 8 * 4 <= program_bytes(
        jax.jit(lambda x: x + 1), shape
    )  # fmt: skip


def test_operations_are_counted_where_the_backend_counts_them():
    shape = jax.ShapeDtypeStruct((64, 8), jnp.float32)
    assert program_flops(jax.jit(lambda x: x @ x.T), shape) == 2 * 64 * 64 * 8

    class Uncounted:
        """As JAX lowers for a backend without a count."""

        def lower(self, *arguments):
            return self

        def cost_analysis(self):
            return None

    assert program_flops(Uncounted(), shape) is None


def test_a_cpu_does_not_say_what_it_has():
    assert device_bytes() is None


class Taken:
    """Memory by batch, and the batches that were asked for."""

    def __init__(self, of_batch):
        self.of_batch, self.asked = of_batch, []

    def __call__(self, batch):
        self.asked.append(batch)
        return self.of_batch(batch)


@pytest.mark.parametrize("limit", [1200, 5000, 5099, 10_999])
def test_the_largest_batch_of_a_line_is_found_in_three_compilations(limit):
    taken = Taken(lambda batch: 1000 + 10 * batch)
    assert largest_batch(taken, limit, least=10, most=1000) == (limit - 1000) // 10
    assert len(taken.asked) == 3


def test_no_batch_larger_than_wanted_or_than_fits():
    taken = Taken(lambda batch: 1000 + 10 * batch)
    assert largest_batch(taken, 10**6, least=10, most=1000) == 1000
    with pytest.raises(ValueError, match="a batch of 10 takes .* choose a smaller batch"):
        largest_batch(taken, 1099, least=10, most=1000)
    assert largest_batch(taken, 1100, least=10, most=10) == 10


@pytest.mark.parametrize("power", [0.5, 2.0, 3.0])
def test_a_batch_that_is_no_line_still_fits(power):
    taken = Taken(lambda batch: int(batch**power))
    limit = int(300**power)
    batch = largest_batch(taken, limit, least=10, most=1000)
    assert 10 <= batch <= 300
    assert len(taken.asked) <= 5


@pytest.mark.parametrize(("least", "most", "tries"), [(0, 4, 1), (5, 4, 1), (1, 4, 0)])
def test_bad_ranges_are_refused(least, most, tries):
    with pytest.raises(ValueError, match="1 <= least <= most"):
        largest_batch(lambda batch: 1, 10, least=least, most=most, tries=tries)
