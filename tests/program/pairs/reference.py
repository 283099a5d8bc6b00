"""The two-group optimum to fifty digits, from the stationarity of the primal problem.

Unknowns are the four scalars and the multiplier, in the block form of the logits; the
path of the package is not used. Newton's method starts at the solution under test, so
what it finds is *an* optimum, and the only one: the program is convex.
"""

import mpmath as mp

mp.mp.dps = 50


def logarithms(K_A, K_B, alpha, beta, u, v):
    """Log probabilities a, b, c, d of one other class, and both losses."""
    K = mp.mpf(K_A + K_B)
    y = alpha * (1 - mp.mpf(1) / K_A) + u / K_A * mp.sqrt(K / K_B)
    s = beta * (1 - mp.mpf(1) / K_B) + v / K_B * mp.sqrt(K / K_A)
    losses = [
        mp.log1p((m - 1) * mp.exp(-spread) + o * mp.exp(-margin))
        for m, o, spread, margin in ((K_A, K_B, alpha, y), (K_B, K_A, beta, s))
    ]
    a, b = -alpha - losses[0], -y - losses[0]
    c, d = -beta - losses[1], -s - losses[1]
    return (a, b, c, d), losses


def frequencies(program):
    log_ratio = mp.mpf(program.log_ratio)
    pi_A = -mp.log(program.majority + program.minority * mp.exp(-log_ratio))
    return pi_A, pi_A - log_ratio


def log_objective(program, alpha, beta, u, v):
    K_A, K_B = program.majority, program.minority
    _, losses = logarithms(K_A, K_B, *map(mp.mpf, (alpha, beta, u, v)))
    pi_A, pi_B = frequencies(program)
    return mp.log(K_A * mp.exp(pi_A) * losses[0] + K_B * mp.exp(pi_B) * losses[1])


def polish(logits):
    """Exact scalars (alpha, beta, u, v) and log multiplier next to given logits.

    A spread of zero stays zero; the caller checks that it may, by the multiplier.
    """
    program = logits.program
    K_A, K_B = program.majority, program.minority
    K, tau = mp.mpf(K_A + K_B), mp.mpf(program.tau)
    pi_A, pi_B = frequencies(program)
    spread_A, spread_B = K_A > 1, K_B > 1 and logits.beta > 0

    def unpack(values):
        values = list(values)
        alpha = values.pop(0) if spread_A else mp.mpf(0)
        beta = values.pop(0) if spread_B else mp.mpf(0)
        return alpha, beta, *values

    def equations(*values):
        alpha, beta, u, v, log_mu = unpack(values)
        (a, b, c, d), _ = logarithms(K_A, K_B, alpha, beta, u, v)
        rho = mp.sqrt(u**2 + v**2)
        rest = [
            pi_A + b + mp.log(K * K_B) / 2 - log_mu - mp.log(u / rho),
            pi_B + d + mp.log(K * K_A) / 2 - log_mu - mp.log(v / rho),
            ((K_A - 1) * alpha + (K_B - 1) * beta + rho) / tau - 1,
        ]
        if spread_B:
            rest.append(pi_B + mp.log(K_B * mp.exp(c) + K_A * mp.exp(d)) - log_mu)
        if spread_A:
            rest.append(pi_A + mp.log(K_A * mp.exp(a) + K_B * mp.exp(b)) - log_mu)
        return rest

    u, v = (mp.mpf(logits.rho) * mp.mpf(part) for part in (logits.cos, logits.sin))
    spreads = [mp.mpf(logits.alpha)] * spread_A + [mp.mpf(logits.beta)] * spread_B
    (_, b, _, _), _ = logarithms(
        K_A, K_B, mp.mpf(logits.alpha), mp.mpf(logits.beta), u, v
    )
    log_mu = pi_A + b + mp.log(K * K_B) / 2 - mp.log(logits.cos)
    return unpack(_newton(equations, [*spreads, u, v, log_mu]))


def _newton(equations, start):
    """Newton's method with difference quotients, in units of each unknown."""
    x = mp.matrix(start)
    for _ in range(25):
        value = mp.matrix(equations(*x))
        jacobian = mp.zeros(len(x))
        for j in range(len(x)):
            moved, step = x.copy(), abs(x[j]) * mp.mpf(10) ** -25
            moved[j] += step
            slope = (mp.matrix(equations(*moved)) - value) / step
            for i in range(len(x)):
                jacobian[i, j] = slope[i]
        change = mp.lu_solve(jacobian, -value)
        x += change
        if max(abs(change[j] / x[j]) for j in range(len(x))) < mp.mpf(10) ** -22:
            return x
    raise RuntimeError("no convergence")
