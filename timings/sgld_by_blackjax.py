"""SGLD by blackjax, compiled, all chains at once: the other side of `sgld_step.py --oracle PYTHON`.

It runs in an environment that has blackjax and jax, and needs nothing of gapbench. It reads the setting as JSON from
the first line of its standard input, runs the chains once for each line after it, and answers with the CPU seconds of
one step of one chain. A minibatch is drawn with replacement, which is faster than without.
"""

import json
import math
import sys
import time
from itertools import pairwise

import blackjax
import jax
import jax.numpy as jnp

told = json.loads(sys.stdin.readline())
x, y = (jnp.array(told[name]) for name in ("x", "y"))  # (R, n)
replicas, n = y.shape
widths = (1, *told["hidden"], 1)


def network(theta, x):
    h = x[:, None]
    for layer, (weight, bias) in enumerate(theta):
        h = (jax.nn.relu(h) if layer else h) @ weight + bias
    return h[:, 0]


def log_prior(theta):
    return -sum(jnp.sum(part**2) for layer in theta for part in layer) / (2 * told["prior_std"] ** 2)


def log_likelihood(theta, point):
    x, y = point
    return -0.5 * ((y - network(theta, x[None])[0]) / told["noise_std"]) ** 2


sgld = blackjax.sgld(blackjax.sgmcmc.gradients.grad_estimator(log_prior, log_likelihood, n))


def chain(key, theta, x, y):
    def step(theta, key):
        drawing, moving = jax.random.split(key)
        index = jax.random.randint(drawing, (told["batch"],), 0, n)
        return sgld.step(moving, theta, (x[index], y[index]), told["step_size"]), None

    return jax.lax.scan(step, theta, jax.random.split(key, told["steps"]))[0]


def start(key):
    keys = jax.random.split(key, len(widths) - 1)
    return [
        (jax.random.normal(one, (m, k)) / math.sqrt(m), jnp.zeros(k))
        for one, (m, k) in zip(keys, pairwise(widths), strict=True)
    ]


chains = jax.jit(jax.vmap(chain))
keys = jax.random.split(jax.random.key(0), replicas)
theta = jax.vmap(start)(keys)
jax.block_until_ready(chains(keys, theta, x, y))  # compile
for _ in sys.stdin:
    began = time.process_time()
    end = jax.block_until_ready(chains(keys, theta, x, y))  # always from the same start: a longer chain may diverge
    seconds = time.process_time() - began
    assert all(bool(jnp.isfinite(part).all()) for layer in end for part in layer)
    print(seconds / (told["steps"] * replicas), flush=True)
