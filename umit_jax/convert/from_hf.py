"""Reads a Hugging Face directory: config.json and safetensors, hub names or those of transformers 5.

`open_model` looks at headers only and refuses what does not fit: every tensor the model needs must be there in its
shape, and nothing else may be. Each of our parameters is then read by itself, whole or the part one device holds, so
that neither a file nor the model has to be in memory.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from umit_jax.convert.keymap import Tensor, copy_blocks, hf_view, hub_name, tensors, to_ours
from umit_jax.convert.tensorfile import CheckpointError, Stored
from umit_jax.convert.weights import find_tensors, read_json
from umit_jax.model.config import ConfigError, ModelConfig
from umit_jax.pieces import for_each, rows_of, scratch

Report = Callable[[int], Any]
_HEAD, _EMBEDDING = "decoder/head/kernel", "decoder/embed/embedding"


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One of our parameters in the files of a directory. dtype holds the values of all its tensors exactly.

    parts: the tensor of each layer, or the only one.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype
    parts: tuple[tuple[Tensor, Stored], ...]
    report: Report = lambda _: None

    def read(self, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """The parameter, or the part that `index` cuts from it: no other bytes are looked at."""
        index = (slice(None),) * len(self.shape) if index is None else index
        out = np.empty(_shape_of(self.shape, index), self.dtype)
        fills = self._fills(out, index)
        for_each(lambda fill: fill(), fills)
        return out

    def each(self, rows: int, use: Callable[[slice, np.ndarray], Any]) -> None:
        """use(part, values) for every `rows` rows of the first axis, in several threads and any order; values are
        another's as soon as `use` returns."""

        def piece(part: slice) -> None:
            index = (part, *[slice(None)] * (len(self.shape) - 1))
            out = scratch("imported", _shape_of(self.shape, index), self.dtype)
            for fill in self._fills(out, index):
                fill()
            use(part, out)

        for_each(piece, rows_of(self.shape[0], rows))

    def _fills(self, out: np.ndarray, index: tuple[slice, ...]) -> list[Callable[[], None]]:
        """What has to be called to fill `out` with this part: for every layer, or once."""
        stacked = self.parts[0][0].layer is not None
        chosen = self.parts[index[0]] if stacked else self.parts
        within = index[1:] if stacked else index

        def fill(tensor: Tensor, stored: Stored, target: np.ndarray) -> None:
            shape, order = hf_view(tensor)
            there = [slice(None)] * len(shape)
            for ours, theirs in enumerate(order):
                there[theirs] = within[ours]
            part = stored.map().reshape(shape)[tuple(there)].transpose(order)
            copy_blocks(target, part)
            self.report(part.nbytes)

        targets = out if stacked else [out]
        return [functools.partial(fill, *part, target) for part, target in zip(chosen, targets, strict=True)]


@dataclasses.dataclass(frozen=True)
class HfModel:
    """A directory whose weights fit its config. leaves: by path; copies: tensors that repeat another one, by name."""

    directory: Path
    config: ModelConfig
    leaves: dict[str, Leaf]
    copies: dict[str, str]

    @property
    def tensors(self) -> list[tuple[Tensor, Stored]]:
        return [part for leaf in self.leaves.values() for part in leaf.parts]

    @property
    def nbytes(self) -> int:
        return sum(stored.nbytes for _, stored in self.tensors)


def open_model(directory: str | Path) -> HfModel:
    """Reads no weights. Raises CheckpointError naming a missing, extra, mis-shaped or contradicting tensor,
    ConfigError for another architecture, OSError for a missing file."""
    directory = Path(directory)
    config = read_config(directory)
    found = find_tensors(directory, hub_name)
    copies = _tied_copies(config, found, directory)
    wanted = _check(config, found, {name: stored.shape for name, stored in found.items()}, str(directory))
    groups: dict[str, list[tuple[Tensor, Stored]]] = {}
    for tensor in wanted:
        groups.setdefault(tensor.entry.path, []).append((tensor, found[tensor.name]))
    return HfModel(directory, config, {path: _leaf(path, parts) for path, parts in groups.items()}, copies)


def read_config(directory: Path) -> ModelConfig:
    """ModelConfig of a directory with config.json; the image processor's file, where there is one, has the last word
    on image_mean and image_std."""
    values = read_json(directory / "config.json")
    found = read_pixels(directory)
    values |= {key: found[key] for key in ("image_mean", "image_std") if found.get(key)}
    if values.get("quantization_config"):
        method = (values["quantization_config"] or {}).get("quant_method", "quantised")
        raise CheckpointError(f"{directory / 'config.json'}: quantization_config: {method} weights are not supported")
    try:
        return ModelConfig.from_hf(values)
    except ConfigError as error:
        raise ConfigError(f"{directory / 'config.json'}: {error}") from error


def read_pixels(directory: Path, video: bool = False) -> dict[str, Any]:
    """The settings of the image (or video) processor; {} without.

    Where transformers looks, in its order: inside processor_config.json, then in a file of its own. Videos have the
    settings of images where no file has theirs.
    """
    kinds = ("video", "image") if video else ("image",)
    path = directory / "processor_config.json"
    nested = read_json(path) if path.exists() else {}
    for kind in kinds:
        if isinstance(found := nested.get(f"{kind}_processor"), dict):
            return found
        path = directory / {"image": "preprocessor_config.json", "video": "video_preprocessor_config.json"}[kind]
        if path.exists():
            return read_json(path)
    return {}


def read(directory: str | Path) -> tuple[ModelConfig, dict[str, Any]]:
    """config and all parameters as numpy arrays (in the dtype of the file) of a Hugging Face directory."""
    model = open_model(directory)
    return model.config, nested({path: leaf.read() for path, leaf in model.leaves.items()})


def with_report(model: HfModel, report: Report) -> dict[str, Leaf]:
    """The parameters by path; report is called with the number of bytes of every piece that is read of them."""
    return {path: dataclasses.replace(leaf, report=report) for path, leaf in model.leaves.items()}


def place(
    model: HfModel, shardings: dict[str, Any], *, dtype: Any = np.float32, report: Report = lambda _: None
) -> dict[str, Any]:
    """The parameters on devices, each process reading the parts of its own devices and nothing else.

    shardings: tree like the parameters'. One parameter's part is on the host at a time.
    """
    places, made = flat(shardings), {}
    for path, leaf in with_report(model, report).items():

        def part(index: Any, leaf: Leaf = leaf) -> np.ndarray:
            return leaf.read(index).astype(dtype, copy=False)

        made[path] = jax.make_array_from_callback(leaf.shape, places[path], _once(part))
    return nested(made)


def params_from(
    config: ModelConfig, names: Iterable[str], load: Callable[[str], np.ndarray], source: str
) -> dict[str, Any]:
    """Parameters from hub-named tensors in memory: `names` there are, and a function that loads one."""
    names = set(names) - ({"lm_head.weight"} if config.tied_head else set())
    values = {name: load(name) for name in names}
    made: dict[str, Any] = {}
    for tensor in _check(config, names, {name: value.shape for name, value in values.items()}, source):
        ours = np.ascontiguousarray(to_ours(tensor, values[tensor.name]))
        made.setdefault(tensor.entry.path, []).append((tensor, ours))
    stacked = {
        path: np.stack([value for _, value in parts]) if parts[0][0].layer is not None else parts[0][1]
        for path, parts in made.items()
    }
    return nested(stacked)


def nested(values: dict[str, Any]) -> dict[str, Any]:
    """A tree from leaves by path."""
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *groups, name = path.split("/")
        node = tree
        for key in groups:
            node = node.setdefault(key, {})
        node[name] = value
    return tree


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves by path of a tree."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}/") if isinstance(value, dict) else {prefix + key: value}
    return found


def _check(config: ModelConfig, names: Iterable[str], shapes: dict[str, tuple[int, ...]], source: str) -> list[Tensor]:
    """The tensors of the model, after comparing them with those there are."""
    wanted, names = list(tensors(config)), set(names)
    for name in [t.name for t in wanted if t.name not in names][:1]:
        raise CheckpointError(f"{source}: tensor {name} is missing")
    for name in sorted(names - {t.name for t in wanted})[:1]:
        raise CheckpointError(f"{source}: tensor {name} is not part of this model")
    for tensor in wanted:
        if tuple(shapes[tensor.name]) != tensor.shape:
            raise CheckpointError(
                f"{source}: tensor {tensor.name}: expected shape {list(tensor.shape)} by config.json, "
                f"found {list(shapes[tensor.name])}"
            )
    return wanted


def _tied_copies(config: ModelConfig, found: dict[str, Stored], directory: Path) -> dict[str, str]:
    """Takes the head of a tied model out of `found`: some writers keep one. It must be the embedding, bit for bit."""
    if not config.tied_head or "lm_head.weight" not in found:
        return {}
    head, embedding = found.pop("lm_head.weight"), found.get("model.embed_tokens.weight")
    if embedding is None:
        raise CheckpointError(f"{directory}: tensor model.embed_tokens.weight is missing")
    if (head.shape, head.dtype) != (embedding.shape, embedding.dtype) or not _same_bytes(head, embedding):
        raise CheckpointError(
            f"{directory}: tensor lm_head.weight is not model.embed_tokens.weight, but config.json says "
            "tie_word_embeddings: set it to false if the head was trained by itself"
        )
    return {"lm_head.weight": "model.embed_tokens.weight"}


def _same_bytes(a: Stored, b: Stored, rows: int = 4096) -> bool:
    bits = [part.map().view(np.dtype(f"u{part.dtype.itemsize}")) for part in (a, b)]
    return all(np.array_equal(bits[0][i : i + rows], bits[1][i : i + rows]) for i in range(0, len(bits[0]), rows))


def _leaf(path: str, parts: list[tuple[Tensor, Stored]]) -> Leaf:
    tensor, stored = parts[0]
    shape = tensor.ours if tensor.layer is None else (len(parts), *tensor.ours)
    dtypes = {part.dtype for _, part in parts}
    return Leaf(path, shape, stored.dtype if len(dtypes) == 1 else np.dtype(np.float32), tuple(parts))


def _shape_of(shape: tuple[int, ...], index: tuple[slice, ...]) -> tuple[int, ...]:
    return tuple(len(range(*part.indices(size))) for part, size in zip(index, shape, strict=True))


def _once(read: Callable[[Any], np.ndarray]) -> Callable[[Any], np.ndarray]:
    """Devices that hold the same part of one parameter share one reading of it."""
    parts: dict[str, np.ndarray] = {}

    def cached(index: Any) -> np.ndarray:
        key = str(index)
        if key not in parts:
            parts[key] = read(index)
        return parts[key]

    return cached
