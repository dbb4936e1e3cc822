"""Which samples are in a batch, known to every process: each host packs its own rows and knows only their ids."""

import json
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from umit_jax.parallel.mesh import data_process


def all_ids(mesh: Mesh, local_rows: Sequence[Sequence[str]]) -> list[str]:
    """Sample ids of the global batch in the order of the row plan, whatever the number of processes.

    local_rows: ids per row of this process, which reads the index-th of `count` equal parts. Collective.
    """
    if jax.process_count() == 1:
        return [sample for row in local_rows for sample in row]
    encoded = np.frombuffer(json.dumps([list(row) for row in local_rows]).encode(), np.uint8)
    longest = int(np.max(multihost_utils.process_allgather(np.array(len(encoded), np.int32))))
    padded = np.pad(encoded, (0, longest - len(encoded)), constant_values=ord(" "))
    texts = multihost_utils.process_allgather(padded)
    by_index = {data_process(mesh, p)[0]: json.loads(bytes(text)) for p, text in enumerate(texts)}
    return [sample for index in sorted(by_index) for row in by_index[index] for sample in row]
