"""Adapters are PEFT's: what we write loads there with our logits, and what PEFT writes computes the same here."""

import dataclasses
import functools
import json
import pathlib
import re

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import load_file, save_file

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

import oracle  # noqa: E402

from umit_jax.convert.from_peft import read_adapter  # noqa: E402
from umit_jax.convert.to_peft import CONFIG, WEIGHTS, AdapterError, adapter_config, write_adapter  # noqa: E402
from umit_jax.model.lora import Lora, merge, start, trainable  # noqa: E402
from umit_jax.model.param import bind  # noqa: E402

FAMILIES = ("gqa2-tied", "2.5-mqa6-untied")
PARTS = [4, (56, 84), 6]
EVERYWHERE = Lora(
    4,
    8.0,
    rslora=True,
    patterns=((r"decoder/layers/attn/(q|v)/", 2, 6.0), "decoder/.*", ("vision/.*", 3, 8.0)),
    full=("projector/.*", "decoder/norm/.*"),
)
FAST = {"xla_backend_optimization_level": 0}  # to compile


@functools.cache
def base(shape):
    """(transformers' model without adapters, config, parameters, a sample, its batch)."""
    model = oracle.torch_model(shape)
    config, params = oracle.our_params(model)
    sample = oracle.make_sample(model, PARTS)
    return model, config, params, sample, oracle.pack([[sample]])


def theirs(model, sample):
    with torch.no_grad():
        return model(**sample.inputs).logits[0].numpy()


def ours(config, params, batch, length):
    def logits(params, batch):
        bound = bind(config, params)
        return bound.hidden(batch) @ bound.head_VD().T

    return np.asarray(jax.jit(logits, compiler_options=FAST)(params, batch))[0, :length]


def assert_close(found, expected):
    assert np.abs(found - expected).max() <= 2e-5 * np.abs(expected).max()


def trained(config, params):
    """(parameters of the adapted model as after some training, what trains)."""
    flat = flatten_dict(start(config, params, jax.random.key(0)), sep="/")
    rng = np.random.default_rng(0)
    for path in sorted(trainable(config)):
        flat[path] = np.asarray(flat[path]) + rng.normal(0, 0.1, flat[path].shape).astype(np.float32)
    own = {path: flat[path] for path in trainable(config)}
    return unflatten_dict(flat, sep="/"), unflatten_dict(own, sep="/")


@functools.cache
def written(shape, directory):
    _, config, params, _, _ = base(shape)
    config = dataclasses.replace(config, lora=EVERYWHERE)
    adapted, own = trained(config, params)
    write_adapter(own, config, directory, "somewhere/base")
    return config, adapted, own


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return functools.cache(lambda shape: tmp_path_factory.mktemp(shape))


@pytest.mark.parametrize("shape", FAMILIES)
def test_peft_loads_our_adapter_with_equal_logits(shape, folder):
    config, adapted, own = written(shape, folder(shape))
    _, _, params, sample, batch = base(shape)
    loaded = peft.PeftModel.from_pretrained(oracle.torch_model(shape), folder(shape))
    expected = theirs(loaded, sample)
    assert np.abs(expected - theirs(base(shape)[0], sample)).max() > 0.05 * np.abs(expected).max()
    with loaded.disable_adapter():  # what trained whole is put beside the base's, not in its place
        assert_close(theirs(loaded, sample), theirs(base(shape)[0], sample))
    assert_close(ours(config, adapted, batch, len(expected)), expected)
    assert_close(ours(base(shape)[1], merge(config, params, own), batch, len(expected)), expected)


@pytest.mark.parametrize("shape", FAMILIES)
def test_what_we_write_we_read_again(shape, folder):
    config, _, own = written(shape, folder(shape))
    again, read = read_adapter(folder(shape), base(shape)[1])
    jax.tree.map(np.testing.assert_array_equal, read, own)
    assert trainable(again) == trainable(config)


@pytest.mark.parametrize("shape", FAMILIES)
def test_an_adapter_of_peft_computes_the_same_here(shape, tmp_path):
    _, config, params, sample, batch = base(shape)
    settings = peft.LoraConfig(
        r=3,
        lora_alpha=5,
        target_modules=["q_proj", "o_proj", "qkv", "up_proj"],
        modules_to_save=["ln_q"],
        rank_pattern={"o_proj": 2},
        alpha_pattern={"qkv": 9},
        init_lora_weights=False,
    )
    model = peft.get_peft_model(oracle.torch_model(shape), settings).eval()
    with torch.no_grad():
        model.get_parameter(next(n for n, _ in model.named_parameters() if "modules_to_save" in n)).add_(0.1)
    model.save_pretrained(tmp_path)
    adapted, read = read_adapter(tmp_path, config)
    expected = theirs(model, sample)
    assert_close(ours(config, merge(adapted, params, read), batch, len(expected)), expected)


def test_names_are_the_shortest_that_say_the_same():
    config = dataclasses.replace(base("gqa2-tied")[1], lora=Lora(4, 8.0))
    kernels = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert adapter_config(config, "")["target_modules"] == kernels
    # In Qwen2.5-VL the vision tower has projections of these names too.
    config = dataclasses.replace(base("2.5-mqa6-untied")[1], lora=Lora(4, 8.0))
    targets = adapter_config(config, "")["target_modules"]
    assert "q_proj" in targets
    assert "up_proj" not in targets
    assert "model.language_model.layers.1.mlp.up_proj" in targets


@pytest.mark.parametrize(
    ("full", "message"),
    [
        ("projector/fc1/bias", "projector/fc1/bias trains whole and projector/fc1/kernel does not: PEFT saves whole"),
        ("decoder/layers/attn/q/bias", "q/bias trains whole and decoder/layers/attn/q/kernel does not"),
        ("decoder/embed", "decoder/embed/embedding trains whole and is also the head"),
    ],
)
def test_what_peft_cannot_hold_is_refused(full, message):
    config = dataclasses.replace(base("gqa2-tied")[1], lora=Lora(4, 8.0, full=(full,)))
    with pytest.raises(AdapterError, match=message):
        adapter_config(config, "")


def _drop(name):
    return lambda arrays, settings: arrays.pop(name)


LAYER = "base_model.model.model.language_model.layers.1.self_attn.k_proj"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda arrays, settings: settings.update(use_dora=True), "use_dora: expected False, found True: not built"),
        (lambda arrays, settings: settings.update(r="4"), "expected numbers r and lora_alpha"),
        (_drop(f"{LAYER}.lora_B.weight"), "no adapter of model.language_model.layers.1.self_attn.k_proj, though other"),
        (
            lambda arrays, settings: arrays.update({f"{LAYER}.lora_A.weight": np.zeros((4, 5), np.float32)}),
            f"tensor {LAYER}.lora_A.weight: expected shape [4, 64], found [4, 5]",
        ),
        (
            lambda arrays, settings: arrays.update({f"{LAYER}x.lora_A.weight": np.zeros((4, 5), np.float32)}),
            "model.layers.1.self_attn.k_projx is not part of this model",
        ),
        (lambda arrays, settings: settings["rank_pattern"].update(k_proj=7), "expected rank 7, found 4"),
        (
            lambda arrays, settings: settings["alpha_pattern"].update({"1.self_attn.k_proj": 7}),
            "layers differ in rank or",
        ),
    ],
)
def test_a_wrong_adapter_is_named(damage, message, folder, tmp_path):
    written("gqa2-tied", folder("gqa2-tied"))
    arrays = load_file(folder("gqa2-tied") / WEIGHTS)
    settings = json.loads((folder("gqa2-tied") / CONFIG).read_text())
    damage(arrays, settings)
    save_file(arrays, tmp_path / WEIGHTS)
    (tmp_path / CONFIG).write_text(json.dumps(settings))
    with pytest.raises(AdapterError, match=re.escape(message)):
        read_adapter(tmp_path, base("gqa2-tied")[1])


def test_a_pickle_is_refused(tmp_path: pathlib.Path):
    (tmp_path / CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8}))
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(AdapterError, match=r"adapter_model.bin: a pickle: refused"):
        read_adapter(tmp_path, base("gqa2-tied")[1])
