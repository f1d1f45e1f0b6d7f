import jax
import numpy as np
import pytest
import softmax_regression as sr

from unlearnkit.unlearning import L1Sparse

KEY = jax.random.key(0)


def test_the_penalty_fades_linearly_over_the_epochs():
    epochs, rate, gamma = 4, 0.2, 0.3
    method = L1Sparse(
        epochs=epochs,
        batch_size=24,
        learning_rate=rate,
        momentum=0.0,
        weight_decay=0.0,
        gamma=gamma,
    )
    start = sr.weights()
    unlearned = method(KEY, sr.MODEL, start, sr.TASK)
    w, norms = sr.as_float64(start), []
    for epoch in range(epochs):
        norms.append(sum(np.abs(leaf).sum() for leaf in w.values()))
        signs = {name: np.sign(leaf) for name, leaf in w.items()}
        penalty = gamma * (1 - epoch / epochs)
        step = sr.combine((1, sr.gradient(w, sr.TASK.retain)), (penalty, signs))
        w = sr.combine((1, w), (-rate, step))
    sr.assert_close(unlearned.variables, w)
    np.testing.assert_allclose(unlearned.info.history["l1_norm"], norms, rtol=1e-5)


@pytest.mark.parametrize("gamma", [-1e-4, float("nan")])
def test_a_negative_penalty_is_refused(gamma):
    with pytest.raises(ValueError, match="gamma must be >= 0"):
        L1Sparse(gamma=gamma)
