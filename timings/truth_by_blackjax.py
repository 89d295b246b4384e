"""The posterior of all parameters by blackjax's NUTS and MAMS: the other side of `truth.py --oracle PYTHON`.

It runs in an environment that has blackjax and jax, and needs nothing of gapbench. It reads the data as JSON from its
standard input, and writes one line of JSON for each sampler: f at x_test after each step, (chains, draws, M), with the
gradients and CPU seconds of burn-in and of the draws. Chains start at draws of the prior, one after the other. MAMS has
trajectories of the same mean number of steps as ours, and a step size for the acceptance 0.8.
"""

import json
import math
import sys
import time
from itertools import pairwise

import blackjax
import jax
import jax.numpy as jnp
from blackjax.adaptation.step_size import dual_averaging_adaptation
from blackjax.mcmc import adjusted_mclmc_dynamic

told = json.load(sys.stdin)
x, y, x_test = (jnp.array(told[name]) for name in ("x", "y", "x_test"))
widths = (1, *told["hidden"], 1)
size = sum((m + 1) * n for m, n in pairwise(widths))


def network(theta, x):
    h, at = x[:, None], 0
    for layer, (m, n) in enumerate(pairwise(widths)):
        weight, bias = theta[at : at + m * n].reshape(m, n), theta[at + m * n : at + (m + 1) * n]
        at += (m + 1) * n
        h = (jax.nn.relu(h) if layer else h) @ weight / math.sqrt(m) + bias
    return h[:, 0]


def log_density(theta):
    error = (y - network(theta, x)) / told["noise_std"]
    return -0.5 * (theta / told["prior_std"]) @ (theta / told["prior_std"]) - 0.5 * error @ error


def nuts(key, start):
    tuning = blackjax.window_adaptation(blackjax.nuts, log_density)
    (state, parameters), info = tuning.run(key, start, num_steps=told["burn_in"])
    step = blackjax.nuts(log_density, **parameters).step
    return state, step, int(info.info.num_integration_steps.sum())


def mams(key, start):
    def steps_of(key, mean):
        return jnp.ceil(2 * mean * jax.random.uniform(key)).astype(int).clip(1)

    kernel = adjusted_mclmc_dynamic.build_kernel(integration_steps_fn=steps_of)

    @jax.jit
    def moved(key, state, size, mean):
        return kernel(key, state, log_density, size, integration_steps_params=(mean,))

    # Dual averaging; short trajectories first, which a chain that falls from the prior needs.
    begin, updated, final = dual_averaging_adaptation(target=0.8)
    state, tuning, gradients = adjusted_mclmc_dynamic.init(start, log_density, key), begin(0.05), 0
    for number, one in enumerate(jax.random.split(key, told["burn_in"])):
        state, info = moved(one, state, jnp.exp(tuning.log_step_size), min(number + 1, told["steps"]))
        tuning = updated(tuning, info.acceptance_rate)
        gradients += int(info.num_integration_steps)
    step_size = final(tuning)
    return state, lambda key, state: moved(key, state, step_size, told["steps"]), gradients


f_of = jax.jit(jax.vmap(lambda theta: network(theta, x_test)))
for name, begin in (("NUTS", nuts), ("MAMS", mams)):
    burnt, drawn, f = {"gradients": 0, "cpu": 0.0}, {"gradients": 0, "cpu": 0.0}, []
    for chain in range(told["chains"]):
        first, second, third, last = jax.random.split(jax.random.key(chain), 4)
        began = time.process_time()
        state, step, gradients = begin(second, told["prior_std"] * jax.random.normal(first, (size,)))
        step = jax.jit(step)
        step(third, state)  # compile
        burnt = {"gradients": burnt["gradients"] + gradients, "cpu": burnt["cpu"] + time.process_time() - began}
        began, places = time.process_time(), []
        for one in jax.random.split(last, told["draws"]):
            state, info = step(one, state)
            drawn["gradients"] += int(info.num_integration_steps)
            places.append(state.position)
        drawn["cpu"] += time.process_time() - began
        f.append(f_of(jnp.stack(places)).tolist())
    print(json.dumps({"name": f"{name}, blackjax {blackjax.__version__}", "f": f, "burn_in": burnt, "draws": drawn}))
