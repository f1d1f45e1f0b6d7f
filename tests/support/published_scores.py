"""Published scores in plain NumPy and scikit-learn, written from their definitions.

Nothing of unlearnkit is imported: these say what its numbers must be to stand beside others'.
"""

import numpy as np
from sklearn.svm import SVC


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def optml_scores(logits, labels):
    """UA, RA, TA and MIA-efficacy of Jia et al. 2023, as shares.

    The machine learns the confidences of as many retain examples, the first ones, as there are test
    examples (1) and of the test examples (0); MIA-efficacy is the share of forget examples that it
    calls 0.
    """
    accuracy, confidence = {}, {}
    for name in logits:
        p = softmax(logits[name])
        accuracy[name] = np.mean(p.argmax(axis=1) == labels[name])
        confidence[name] = p[np.arange(len(p)), labels[name]].reshape(-1, 1)
    members, others = confidence["retain"][: len(confidence["test"])], confidence["test"]
    machine = SVC(C=3, gamma="auto", kernel="rbf")
    machine.fit(
        np.concatenate([members, others]),
        np.concatenate([np.ones(len(members)), np.zeros(len(others))]),
    )
    efficacy = 1 - machine.predict(confidence["forget"]).mean()
    return np.array([1 - accuracy["forget"], accuracy["retain"], accuracy["test"], efficacy])


def challenge_epsilon(unlearned, retrained, delta=1e-5):
    """The ε of one example by the scorer of the NeurIPS 2023 challenge, every threshold in turn."""
    spans = sorted([np.ptp(unlearned), np.ptp(retrained)])
    if spans[0] / spans[1] < 0.01:
        return 50.0
    positive, negative = unlearned, retrained
    if np.median(retrained) > np.median(unlearned):
        positive, negative = retrained, unlearned
    rates = []
    everything = np.concatenate([positive, negative])
    span = everything.max() - everything.min()
    for t in np.linspace(everything.min(), everything.max(), int(np.ceil(100 * span))):
        rates.append((np.mean(negative >= t), np.mean(positive < t)))
    inner, outer = sorted([positive, negative], key=np.ptp)
    width = inner.max() - inner.min()
    first, last = inner.min() + width - 2.0, inner.max() + 2.0
    for right in np.linspace(first, last, int(np.ceil(100 * (last - first)))):
        left = np.linspace(right - width - 2.0, right - width + 2.0, 400)[:, None]
        within = [
            np.mean((left <= values) & (values <= right), axis=1) for values in (inner, outer)
        ]
        rates += zip(within[1], 1 - within[0], strict=True)
    best = None
    for fpr, fnr in {(round(a, 9), round(b, 9)) for a, b in rates}:
        if fpr == 0 and fnr == 0:
            return 50.0
        if fpr == 0 or fnr == 0:
            continue
        terms = [(1 - delta - fpr) / fnr, (1 - delta - fnr) / fpr]
        value = max([0.0, *(np.log(term) for term in terms if term > 0)])
        best = value if best is None else max(best, value)
    return best


def challenge_points(epsilon, networks):
    """Halved points for every half of ε, none where no whole bin is left below ⌈log(m - 1)⌉."""
    end, points = 0.5, 1.0
    while end <= np.ceil(np.log(networks - 1)):
        if epsilon < end:
            return points
        end, points = end + 0.5, points / 2
    return 0.0


def challenge_quality(unlearned, retrained):
    epsilons = [challenge_epsilon(u, r) for u, r in zip(unlearned.T, retrained.T, strict=True)]
    return np.mean([challenge_points(e, len(unlearned)) for e in epsilons]), np.array(epsilons)


def lira_queries(logits, labels):
    """log p_y - log (1 - p_y) of logits [n, 1, queries, classes], averaged over the second axis."""
    p = softmax(np.asarray(logits, np.float64))
    found = np.empty((p.shape[0], p.shape[2]))
    for i, label in enumerate(labels):
        right = p[i, :, :, label]
        wrong = np.delete(p[i], label, axis=-1).sum(axis=-1)
        found[i] = np.log(right.mean(axis=0) + 1e-45) - np.log(wrong.mean(axis=0) + 1e-45)
    return found


def _log_normal(x, mean, std):
    return -((x - mean) ** 2) / (2 * std**2) - np.log(std * np.sqrt(2 * np.pi))


def lira_reference(found, said, is_in, *, online, fixed_variance):
    """Scores of the public code of LiRA, larger for members: found [n, q], said [s, n, q]."""
    n = found.shape[0]
    ins = [said[is_in[:, j], j] for j in range(n)]
    outs = [said[~is_in[:, j], j] for j in range(n)]
    ins = np.array([x[: min(map(len, ins))] for x in ins])
    outs = np.array([x[: min(map(len, outs))] for x in outs])
    std_in, std_out = (x.std(axis=1) for x in (ins, outs))
    if fixed_variance:
        std_in = np.full_like(std_in, ins.std())
        std_out = np.full_like(std_out, ins.std() if online else outs.std())
    scores = -_log_normal(found, np.median(outs, axis=1), std_out)
    if online:
        scores = scores + _log_normal(found, np.median(ins, axis=1), std_in)
    return scores.mean(axis=1)
