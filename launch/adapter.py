"""PEFT adapter directories: `umit export --adapter` writes one of a LoRA run, `umit import PEFT_DIR --base` reads one.

What an import makes is a checkpoint like a LoRA run's: adapters that name their base, for eval, predict, export and
config.init_from.
"""

import pathlib
import shutil
from typing import Any

from launch import workdir
from launch.cli import UsageError


def is_adapter(directory: pathlib.Path) -> bool:
    return (directory / "adapter_config.json").is_file()


def export_adapter(checkpoint: workdir.Checkpoint, out: pathlib.Path, base_name: str) -> dict[str, Any]:
    """Writes a LoRA run's adapter. base_name: what a reader of it loads the base by; "" takes the path of ours."""
    from launch.model import load_companions
    from umit_jax.convert.aside import whole_directory
    from umit_jax.convert.to_peft import write_adapter
    from umit_jax.train.checkpoint import read_data
    from umit_jax.train.weights import lora_of, trained_weights

    data = read_data(checkpoint.path)
    if lora_of(data) is None:
        raise UsageError(f"--adapter: {checkpoint.path} is not of a LoRA run: export it without --adapter")
    config, own = trained_weights(checkpoint.path, load_companions(checkpoint.model_dir)[0])
    with whole_directory(out) as aside:
        count, size = write_adapter(own, config, aside, base_name or data["base"]["path"])
    return {"tensors": count, "bytes": size}


def import_adapter(directory: pathlib.Path, base: pathlib.Path | None, out: pathlib.Path) -> dict[str, Any]:
    """Makes a workdir of a PEFT directory; base: workdir or checkpoint of the model that the adapter belongs to."""
    import jax

    from launch.model import load_companions
    from umit_jax.convert.aside import whole_directory
    from umit_jax.convert.from_peft import read_adapter
    from umit_jax.train.base import Base
    from umit_jax.train.checkpoint import save_params

    if base is None:
        raise UsageError(f"{directory} is a PEFT adapter: --base names the imported model it belongs to")
    below = workdir.find(base, "--base")
    config, own = read_adapter(directory, load_companions(below.model_dir)[0])
    own = jax.tree.map(jax.numpy.asarray, own)
    with whole_directory(out) as aside:
        shutil.copytree(below.model_dir, aside / "model")
        save_params(aside, own, Base(below.path).record(config))
    leaves = jax.tree.leaves(own)
    return {"tensors": len(leaves), "bytes": sum(leaf.nbytes for leaf in leaves)}
