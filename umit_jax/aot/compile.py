"""The complete training step compiled for a TPU slice on a machine without one, and what the compiler says of it.

Vision tower, projector, decoder, loss, gradients and optimizer are one program, the one that training runs
(train/program.py), lowered for the slice's devices from shapes alone: no array exists.
"""

import dataclasses
import math
import re
import time
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
from jax.sharding import Mesh

from umit_jax.aot.topology import Topology
from umit_jax.batch import Batch
from umit_jax.model.config import ModelConfig
from umit_jax.parallel.loss import layout
from umit_jax.parallel.mesh import abstract_batch, check_batch_divides, make_mesh
from umit_jax.train.program import Program, build


@dataclasses.dataclass(frozen=True)
class Compiled:
    """Bytes are of one device's memory: arguments (state and batch), temporaries, and the peak of both with the
    program itself. hlo: the optimised program of one device, None where it did not fit and there is none.
    frozen: the parameters that do not train. loss_chunks: chunks of tokens in a row all of whose tokens carry
    loss. cpu_seconds: of this process while it compiled."""

    devices: int
    mesh: dict[str, int]
    frozen: dict[str, Any]
    loss_chunks: int
    argument_bytes: int
    temp_bytes: int
    peak_bytes: int
    seconds: float
    cpu_seconds: float
    hlo: str | None


# What the compiler writes when a program does not fit: all that it needs, or its temporaries alone.
_TOTAL = re.compile(r"Used ([\d.]+)([KMGT]?) of [\d.]+[KMGT]? hbm")
_TEMPORARIES = re.compile(r"HLO temporaries \(([\d.]+)([KMGT]?)\) exceeds")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def compile_step(
    config: ml_collections.ConfigDict, model_config: ModelConfig, topology: Topology, axes: Mapping[str, int]
) -> Compiled:
    """Compiles the step of a training config. axes: as make_mesh takes them.

    Raises errors of configuration that name the key, as training does.
    """
    mesh, program, batch = _program(config, model_config, topology, axes)
    data = config.data
    chunk = layout(mesh, data.row_tokens, model_config.text.vocab_size, config.loss_chunk).chunk
    started, cpu_started = time.monotonic(), time.process_time()
    hlo: str | None = None
    try:
        compiled = program.step.lower(program.abstract, batch).compile()
    except jax.errors.JaxRuntimeError as error:
        arguments = _argument_bytes((program.abstract, batch))
        peak = needed_bytes(str(error), arguments)
        if peak is None:
            raise
        temporary = peak - arguments
    else:
        memory, hlo = compiled.memory_analysis(), compiled.as_text()
        arguments, temporary = memory.argument_size_in_bytes, memory.temp_size_in_bytes
        new = memory.output_size_in_bytes - memory.alias_size_in_bytes + memory.generated_code_size_in_bytes
        peak = arguments + temporary + new
    return Compiled(
        devices=mesh.size,
        mesh=dict(mesh.shape),
        frozen=program.abstract.frozen,
        loss_chunks=-(-data.row_tokens // mesh.shape["context"] // chunk),
        argument_bytes=arguments,
        temp_bytes=temporary,
        peak_bytes=peak,
        seconds=time.monotonic() - started,
        cpu_seconds=time.process_time() - cpu_started,
        hlo=hlo,
    )


def held_bytes(
    config: ml_collections.ConfigDict, model_config: ModelConfig, topology: Topology, axes: Mapping[str, int]
) -> int:
    """Bytes of one device that the state and a batch take, known without compiling. Raises as compile_step does."""
    _, program, batch = _program(config, model_config, topology, axes)
    return _argument_bytes((program.abstract, batch))


def _program(
    config: ml_collections.ConfigDict, model_config: ModelConfig, topology: Topology, axes: Mapping[str, int]
) -> tuple[Mesh, Program, Batch]:
    mesh, data = make_mesh(axes, topology.devices()), config.data
    check_batch_divides(mesh, data.rows, data.row_tokens, data.row_patches)
    batch = abstract_batch(mesh, data.rows, data.row_tokens, data.row_patches, model_config.vision.patch_values)
    return mesh, build(config, model_config, mesh), batch


def needed_bytes(error: str, arguments: int) -> int | None:
    """Bytes of one device that a program needs which does not fit, from the compiler's error; None where it is
    another error."""
    for pattern, beside in ((_TOTAL, 0), (_TEMPORARIES, arguments)):
        found = pattern.search(error)
        if found is not None:
            return beside + int(float(found[1]) * _UNITS[found[2]])
    return None


def _argument_bytes(tree: Any) -> int:
    """Bytes of one device's shards."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))
