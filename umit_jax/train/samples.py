"""What is in a global batch, known to every process: each host packs its own rows and knows only what these hold."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from umit_jax.parallel.mesh import data_process

Counts = dict[str, dict[str, int]]


def all_ids(mesh: Mesh, local_rows: Sequence[Sequence[str]]) -> list[str]:
    """Sample ids of the global batch in the order of the row plan, whatever the number of processes.

    local_rows: ids per row of this process, which reads the index-th of `count` equal parts. Collective.
    """
    return [sample for part in _parts(mesh, [list(row) for row in local_rows]) for row in part for sample in row]


def all_counts(mesh: Mesh, local: Mapping[str, Mapping[str, int]]) -> Counts:
    """The sum of what the processes count, each part of the batch once. Collective."""
    return added(_parts(mesh, {kind: dict(counts) for kind, counts in local.items()}))


def added(parts: Iterable[Mapping[str, Mapping[str, int]]]) -> Counts:
    found: Counts = {}
    for part in parts:
        for kind, counts in part.items():
            outcomes = found.setdefault(kind, {})
            for outcome, count in counts.items():
                outcomes[outcome] = outcomes.get(outcome, 0) + count
    return found


def _parts(mesh: Mesh, local: Any) -> list[Any]:
    """The JSON value of each part of the global batch, in order. Collective."""
    if jax.process_count() == 1:
        return [local]
    encoded = np.frombuffer(json.dumps(local).encode(), np.uint8)
    longest = int(np.max(multihost_utils.process_allgather(np.array(len(encoded), np.int32))))
    padded = np.pad(encoded, (0, longest - len(encoded)), constant_values=ord(" "))
    texts = multihost_utils.process_allgather(padded)
    by_index = {data_process(mesh, p)[0]: json.loads(bytes(text)) for p, text in enumerate(texts)}
    return [by_index[index] for index in sorted(by_index)]
