"""TrainState: plain pytrees. The parameters are two nested dicts with the paths of one model between them.

| part   | what                                             | dtype         |
| params | trained parameters                               | float32       |
| frozen | the others; no gradient, no optimizer state      | compute dtype, or quantised |
| opt    | optax state over params                          | float32       |
| step   | optimizer steps done                             | int32         |

State is created under the shardings that the step takes and returns, so that the step compiles once.
"""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from umit_jax.model.config import ModelConfig
from umit_jax.model.lora import is_quantised
from umit_jax.model.param import abstract_params, init_params, logical_axes
from umit_jax.parallel.mesh import replicated
from umit_jax.parallel.rules import shardings, with_shardings

Params = dict[str, Any]


class TrainState(NamedTuple):
    params: Params
    frozen: Params
    opt: Any
    step: Any


def split(params: Params, frozen: Collection[str]) -> tuple[Params, Params]:
    """(trained, frozen) parts of a parameter tree by path."""
    flat = flatten_dict(params, sep="/")
    parts = [{p: v for p, v in flat.items() if (p in frozen) == wanted} for wanted in (False, True)]
    return unflatten_dict(parts[0], sep="/"), unflatten_dict(parts[1], sep="/")


def merge(params: Params, frozen: Params) -> Params:
    """The whole parameter tree again."""
    return unflatten_dict(flatten_dict(params, sep="/") | flatten_dict(frozen, sep="/"), sep="/")


def abstract_state(
    config: ModelConfig,
    mesh: Mesh,
    optimizer: optax.GradientTransformation,
    frozen: Collection[str],
    compute_dtype: jnp.dtype,
) -> TrainState:
    """The state as ShapeDtypeStructs with their shardings: what jit, Orbax and ahead-of-time compilation take.

    Adam's moments are sharded like their parameters.
    """
    shapes = abstract_params(config)
    placed = with_shardings(shapes, shardings(mesh, logical_axes(config), shapes))
    params, still = split(placed, frozen)
    still = {
        path: jax.ShapeDtypeStruct(x.shape, x.dtype if is_quantised(path) else compute_dtype, sharding=x.sharding)
        for path, x in flatten_dict(still, sep="/").items()
    }
    still = unflatten_dict(still, sep="/")
    everywhere = replicated(mesh)
    opt = optax.tree_map_params(
        optimizer,
        lambda x, like: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=like.sharding),
        jax.eval_shape(optimizer.init, params),
        params,
        transform_non_params=lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere),
    )
    return TrainState(params, still, opt, jax.ShapeDtypeStruct((), jnp.int32, sharding=everywhere))


def shardings_of(abstract: Any) -> Any:
    return jax.tree.map(lambda x: x.sharding, abstract)


def create(
    config: ModelConfig,
    abstract: TrainState,
    optimizer: optax.GradientTransformation,
    seed: int,
    load: Callable[[Params], Params] | None = None,
) -> TrainState:
    """A new state at step 0: random parameters from `seed`, or those that `load` returns for a tree of shardings.

    Random parameters do not depend on the mesh.
    """
    frozen = flatten_dict(abstract.frozen, sep="/").keys()

    def start(params: Params) -> TrainState:
        trained, still = split(params, frozen)
        still = jax.tree.map(lambda x, like: x.astype(like.dtype), still, abstract.frozen)
        trained = jax.tree.map(lambda x, like: x.astype(like.dtype), trained, abstract.params)
        return TrainState(trained, still, optimizer.init(trained), jnp.zeros((), jnp.int32))

    out = shardings_of(abstract)
    if load is None:
        # Runs once, and optimising the code of one random generator per parameter costs XLA:CPU seconds.
        on_cpu = jax.tree.leaves(out)[0].mesh.devices.flat[0].platform == "cpu"
        options = {"xla_backend_optimization_level": 0} if on_cpu else None
        make = jax.jit(lambda key: start(init_params(config, key)), out_shardings=out, compiler_options=options)
        return make(jax.random.key(seed))
    params = load(merge(out.params, out.frozen))
    return jax.jit(start, out_shardings=out, donate_argnums=0)(params)
