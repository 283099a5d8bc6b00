"""What a clone profile holds, computed slowly from the data: one regression a chunk."""

import numpy as np
from sklearn.linear_model import LinearRegression, Ridge


def regression(fitted, chunk, *, paper=False):
    model = Ridge(alpha=1e-8, solver="svd") if paper else LinearRegression()
    return model.fit(fitted[:, chunk], fitted)


def columns(width, chunk, scope):
    chosen = set(chunk.tolist()) if scope == "complement" else set()
    return [j for j in range(width) if j not in chosen]


def r_squared(fitted, scored, chunk, scope, *, paper=False):
    inside = columns(fitted.shape[1], chunk, scope)
    found = regression(fitted, chunk, paper=paper).predict(scored[:, chunk])
    total = np.square((scored - scored.mean(0))[:, inside]).sum()
    missed = np.square((scored - found)[:, inside]).sum()
    return 1 - missed / total if total else np.nan


def residual_correlation(fitted, scored, chunk, scope, *, paper=False):
    residual = scored - regression(fitted, chunk, paper=paper).predict(scored[:, chunk])
    if not paper:
        residual[:, chunk] = 0.0
    inside = columns(fitted.shape[1], chunk, scope)
    covariance = np.cov(residual[:, inside].T)
    total, pairs = 0.0, 0
    for i in range(len(inside)):
        for j in range(i):
            product = np.sqrt(covariance[i, i] * covariance[j, j])
            pairs += 1
            if paper:
                total += abs(covariance[i, j]) / (product + 1e-8)
            elif product > 0:
                total += abs(covariance[i, j]) / product
    return total / pairs if pairs else np.nan


def decisions(logits):
    return (logits[:, 0] > 0).astype(int) if logits.shape[1] == 1 else logits.argmax(1)


def error(fitted, scored, labels, weight, bias, chunk, reading, *, paper=False):
    """The error of a classifier on a chunk: raw, rescaled or folded."""
    if reading == "folded":
        back = regression(fitted, chunk, paper=paper).predict(scored[:, chunk])
        back[:, chunk] = scored[:, chunk]
        logits = back @ weight.T + bias
    else:
        scale = weight.shape[1] / len(chunk) if reading == "rescaled" else 1.0
        logits = scale * scored[:, chunk] @ weight[:, chunk].T + bias
    return float((decisions(logits) != labels).mean())


def leave_one_out(fitted, scored):
    """The share of variance that regressions on all other neurons reconstruct."""
    missed = 0.0
    for j in range(fitted.shape[1]):
        others = np.delete(np.arange(fitted.shape[1]), j)
        mean = fitted[:, others].mean(0)
        centred = fitted[:, others] - mean
        a = np.linalg.pinv(centred, rcond=1e-9) @ (fitted[:, j] - fitted[:, j].mean())
        found = (scored[:, others] - mean) @ a + fitted[:, j].mean()
        missed += np.square(scored[:, j] - found).sum()
    return 1 - missed / np.square(scored - scored.mean(0)).sum()
