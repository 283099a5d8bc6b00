"""Every metric again: float64, two passes, one sample at a time, straight from papers."""

import itertools
import math

import numpy as np
import torch


class Reference:
    """The metrics of features h (n, d), labels y, classifiers W, and logits z (n, K)."""

    def __init__(self, h, y, W, z):
        self.h, self.W, self.z = (np.asarray(a, dtype=np.float64) for a in (h, W, z))
        self.y = np.asarray(y)
        self.K, self.d = self.W.shape
        self.seen = [k for k in range(self.K) if (self.y == k).any()]
        self.of = {k: self.h[self.y == k] for k in self.seen}
        self.mu = {k: careful_mean(self.of[k]) for k in self.seen}
        self.v = {k: np.mean(sq(self.of[k] - self.mu[k])) for k in self.seen}

    def centre(self, centring):
        if centring == "none":
            return np.zeros(self.d)
        if centring == "sample":
            return careful_mean(self.h)
        return careful_mean(np.stack([self.mu[k] for k in self.seen]))

    def means(self, centring):
        return np.stack([self.mu[k] - self.centre(centring) for k in self.seen])

    def classifiers(self, centred=True):
        return self.W - self.W.mean(0) if centred else self.W

    def within(self, pooling):
        scatter = {k: gram(self.of[k] - self.mu[k]) for k in self.seen}
        if pooling == "pooled":
            return sum(scatter.values()) / len(self.h)
        return np.mean([scatter[k] / len(self.of[k]) for k in self.seen], axis=0)

    def between(self, centring):
        return gram(self.means(centring)) / len(self.seen)

    def nc1(self, centring, pooling):
        S_B = self.between(centring)
        inverse = rank_pinv(S_B, min(len(self.seen) - 1, self.d))
        return np.trace(self.within(pooling) @ inverse) / len(self.seen)

    def nc1_quotient(self, centring, pooling):
        return np.trace(self.within(pooling)) / np.trace(self.between(centring))

    def cdnv(self):
        return np.mean(
            [
                (self.v[j] + self.v[k]) / (2 * sq(self.mu[j] - self.mu[k]))
                for j, k in itertools.combinations(self.seen, 2)
            ]
        )

    def nc3(self, centring, centred=True):
        w, m = self.classifiers(centred)[self.seen], self.means(centring)
        return np.linalg.norm(w / np.linalg.norm(w) - m / np.linalg.norm(m))

    def nc3_rows(self, centring, centred=True):
        w, m = self.classifiers(centred)[self.seen], self.means(centring)
        return np.mean(np.sqrt(sq(unit(w) - unit(m))))

    def nc3_product(self, frame):
        simplex = frame == "simplex"
        w = self.classifiers(simplex)[self.seen]
        return frame_distance(
            w @ self.means("sample" if simplex else "none").T, simplex=simplex
        )

    def nc5(self, outside, centring):
        o = outside - self.centre(centring)
        return np.mean([abs(unit(m) @ unit(o)) for m in self.means(centring)])

    def bias(self, b, centring, centred):
        logits = self.W @ self.centre(centring) + b
        return np.linalg.norm(logits - centred * logits.mean())

    def class_margins(self, b):
        margins = np.full(self.K, math.nan)
        for k in self.seen:
            z = self.W @ self.mu[k] + b
            margins[k] = min(z[k] - z[j] for j in range(self.K) if j != k)
        return margins

    def nearest(self):
        distances = np.full((len(self.h), self.K), np.inf)
        for k in self.seen:
            distances[:, k] = sq(self.h - self.mu[k])
        return distances.argmin(1)

    def class_agreement(self):
        agree = self.nearest() == self.z.argmax(1)
        return [
            np.mean(agree[self.y == k]) if k in self.of else math.nan
            for k in range(self.K)
        ]

    def nc4(self):
        return np.mean(self.nearest() == self.z.argmax(1))

    def accuracy(self):
        return np.mean(self.z.argmax(1) == self.y)

    def loss(self):
        total = 0.0
        for row, label in zip(self.z, self.y, strict=True):
            top = row.max()
            total += top + math.log(np.exp(row - top).sum()) - row[label]
        return total / len(self.y)

    def energy(self, convention):
        W = self.classifiers(centred=convention != "uncentred")
        c = self.centre(
            {"class_mean": "class", "uncentred": "none"}.get(convention, "sample")
        )
        if convention == "means_only":
            squares = [sq(self.mu[k] - c) for k in self.seen]
        else:
            squares = [np.mean(sq(self.of[k] - c)) for k in self.seen]
        return np.mean(sq(W)), np.mean(squares)


def nc2(rows, correction=0):
    """Deviation from a simplex ETF: equinorm, mean cosine, equiangularity, angle, gram."""
    K = len(rows)
    norms = [math.sqrt(sq(row)) for row in rows]
    cosines = [
        rows[j] @ rows[k] / (norms[j] * norms[k])
        for j, k in itertools.permutations(range(K), 2)
    ]
    target = np.eye(K) - np.ones((K, K)) / K
    G = rows @ rows.T
    return (
        np.std(norms, ddof=correction) / np.mean(norms),
        np.mean(cosines),
        np.std(cosines, ddof=correction),
        np.mean([abs(c + 1 / (K - 1)) for c in cosines]),
        np.linalg.norm(G / np.linalg.norm(G) - target / np.linalg.norm(target)),
    )


def frame_distance(P, *, simplex):
    """Distance of a product to that of a simplex ETF, or of an orthogonal frame."""
    T = np.eye(len(P)) - (1 / len(P) if simplex else 0)
    return np.linalg.norm(P / np.linalg.norm(P) - T / np.linalg.norm(T))


def log_kernel(rows):
    """Mean and deviation of the log kernel; NaN where two directions coincide."""
    squares = [sq(a - b) for a, b in itertools.combinations(unit(rows), 2)]
    if min(squares) == 0:
        return math.nan, math.nan
    values = [-math.log(square) / 2 for square in squares]
    return np.mean(values), np.std(values)


def unit(a):
    return a / np.sqrt(sq(a))[..., None]


def careful_mean(rows):
    """Two passes: far from the origin the plain mean is off by a few ulps."""
    mean = rows.mean(0)
    return mean + (rows - mean).mean(0)


def sq(a):
    return (a * a).sum(-1)


def gram(rows):
    return rows.T @ rows


def rank_pinv(S, rank):
    values, vectors = np.linalg.eigh(S)
    kept = [
        j for j in np.argsort(values)[::-1][:rank] if values[j] > 1e-13 * values.max()
    ]
    return vectors[:, kept] @ np.diag(1 / values[kept]) @ vectors[:, kept].T


CENTRINGS = ("sample", "class")
POOLINGS = ("pooled", "class")


def assert_agrees(measurement, reference, rtol=1e-10):
    """Compare every metric of a measurement with the reference."""

    def same(name, actual, desired, atol=0.0):
        np.testing.assert_allclose(
            actual, desired, rtol=rtol, atol=atol, err_msg=name, equal_nan=True
        )

    m, r = measurement, reference
    for c, p in itertools.product(CENTRINGS, POOLINGS):
        same(f"nc1 {c} {p}", m.nc1(c, p), r.nc1(c, p))
        same(f"quotient {c} {p}", m.nc1_quotient(c, p), r.nc1_quotient(c, p))
    for c in (*CENTRINGS, "none"):
        same(f"nc3 {c}", m.nc3(c), r.nc3(c))
        values = m.nc2_means(c)
        # Differences of cosines: relative to one, not to themselves.
        same(f"nc2 means {c}", list(vars(values).values()), nc2(r.means(c)), atol=rtol)
    for centred in (True, False):
        values = vars(m.nc2_classifiers(centred=centred))
        same("nc2 W", list(values.values()), nc2(r.classifiers(centred)), atol=rtol)
        same("nc3", m.nc3(centred=centred), r.nc3("sample", centred))
    _assert_more_agrees(m, r, same)
    same("cdnv", m.cdnv(), r.cdnv())
    same("nc4", m.nc4(), r.nc4())
    same("nc4 by class", m.nearest_mean.class_agreement, r.class_agreement())
    same("accuracy", m.accuracy, r.accuracy())
    # A difference of logits, which may be large where the loss is tiny.
    same("loss", m.loss, r.loss(), atol=rtol)
    for convention in ("sample_mean", "class_mean", "means_only", "uncentred"):
        same(convention, m.energy(convention), r.energy(convention))


def _assert_more_agrees(m, r, same):
    b = np.zeros(r.K) if m.bias is None else m.bias.numpy()
    # Logits of means far from the origin are differences of large numbers.
    size = np.abs(r.W).max() * max(np.abs(mu).max() for mu in r.mu.values())
    outside = r.h[::2].mean(0) + 1.0
    for c in (*CENTRINGS, "none"):
        same(f"nc3 rows {c}", m.nc3(c, normalisation="rows"), r.nc3_rows(c))
        same(f"nc5 {c}", m.nc5(torch.from_numpy(outside), c), r.nc5(outside, c))
        kernel = m.kernel_energy(centring=c)
        same(
            f"kernel {c}", (kernel.mean, kernel.std), log_kernel(r.means(c)), atol=1e-9
        )
    for c, centred in itertools.product(CENTRINGS, (True, False)):
        actual = m.bias_distance(c, centred=centred)
        same(f"bias {c}", actual, r.bias(b, c, centred), atol=1e-12 * size)
    for frame in ("simplex", "orthogonal"):
        same(f"product {frame}", m.nc3_product(frame), r.nc3_product(frame))
    raw = r.means("none")
    expected = frame_distance(raw @ raw.T, simplex=False)
    same("orthogonal", m.orthogonal_distance("class_means"), expected)
    same("margins", m.class_margins(), r.class_margins(b), atol=1e-12 * size)
