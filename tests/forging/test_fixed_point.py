import jax
import jax.numpy as jnp
import numpy as np
import pytest
from forging_oracles import ALLOWED, VARIABLES
from softmax_regression import MODEL, as_float64, draw, gradient

from unlearnkit.base import concatenate
from unlearnkit.forging import search_exact

KEY = jax.random.key(3)


def units(dataset, bits):
    """Every example's gradient in units of 2^-bits, in the order kernel, bias by rows."""
    w = as_float64(VARIABLES)
    parts = [gradient(w, dataset.take(np.array([i]))) for i in range(dataset.size)]
    rows = [np.concatenate([part["bias"], part["kernel"].ravel()]) for part in parts]
    return np.floor(np.array(rows) * 2.0**bits + 0.5)


def test_the_batch_itself_is_the_only_exact_one():
    batch = ALLOWED.take(jnp.array([4, 9]))
    found = search_exact(
        KEY, MODEL, VARIABLES, batch, ALLOWED, points=40, candidates=780, coordinates=3
    )
    assert found == (780, 1, 0)


def test_without_it_there_is_none():
    batch = ALLOWED.take(jnp.array([4, 9]))
    others = ALLOWED.take(np.delete(np.arange(40), [4, 9]))
    options = {"points": 38, "candidates": 703, "fraction_bits": 8, "coordinates": 15}
    found = search_exact(KEY, MODEL, VARIABLES, batch, others, **options)
    target = units(batch, 8).sum(0) // 2
    rows = units(others, 8)
    pairs = [(rows[i] + rows[j]) // 2 for i in range(38) for j in range(i)]
    expected = min(np.abs(pair - target).max() for pair in pairs)
    assert (found.candidates, found.exact) == (703, 0)
    assert abs(found.nearest - expected) <= 1  # float32 gradients may round to the other side


def test_agreement_in_the_coordinates_compared_first_is_not_enough():
    batch = draw(11, 2)
    near = concatenate(batch._replace(x=batch.x + 1e-3), batch._replace(x=batch.x - 2e-3))
    counts = []
    for coordinates in (1, 15):
        options = {"points": 4, "candidates": 6, "fraction_bits": 8, "coordinates": coordinates}
        counts.append(search_exact(KEY, MODEL, VARIABLES, batch, near, **options))
    assert counts[0].exact == counts[1].exact == 0
    assert counts[0].nearest == 0 < counts[1].nearest


def test_as_many_batches_as_asked_for_are_tried_where_the_cards_would_give_more():
    batch = ALLOWED.take(jnp.array([4, 9, 11]))
    found = search_exact(KEY, MODEL, VARIABLES, batch, ALLOWED, points=40, candidates=12_000)
    assert found.candidates == 12_000


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="fraction_bits in 1 … 30, got .* and 31"):
        search_exact(KEY, MODEL, VARIABLES, ALLOWED, ALLOWED, fraction_bits=31)
