"""transformers as the oracle: random models of every family, samples it prepares itself, and their Batch for our side.

Positions, patches, the order of windows and answers all come from transformers (get_rope_index, Qwen2VLImageProcessor,
get_vision_window_index); nothing of data_pipelines is used, so that the two sides share no code. Images have sides that
are multiples of 28: no resize, so the processor's pixels are exactly the normalised uint8 ones.
"""

import dataclasses

import numpy as np
import torch
import transformers
from transformers import PreTrainedModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.vision_utils import get_vision_window_index

from umit_jax.batch import Batch, check_batch, empty_batch
from umit_jax.convert.from_hf import params_from
from umit_jax.convert.keymap import hub_name
from umit_jax.model.config import ModelConfig

torch.set_num_threads(1)  # tiny models: more threads only wait for each other

IMAGE, VIDEO, START, END = 90, 91, 92, 93

# name: heads, kv heads, head size, mrope_section, text layers, tied, vision layers, vision heads, vision head size,
# and for Qwen2.5-VL: layers without windows, pixels along a window, tokens per second
SHAPES = {
    "gqa2-tied": (4, 2, 16, (2, 3, 3), 2, True, 2, 2, 16),
    "mqa6-untied": (6, 1, 12, (2, 2, 2), 3, False, 1, 3, 8),
    "mha5-untied": (5, 5, 8, (1, 1, 2), 1, False, 3, 1, 20),
    "2.5-gqa2-tied": (4, 2, 16, (2, 3, 3), 2, True, 3, 2, 16, [1], 56, 2),
    "2.5-mqa6-untied": (6, 1, 12, (2, 2, 2), 3, False, 2, 3, 8, [0], 84, 5),
    "2.5-mha5-untied": (5, 5, 8, (1, 1, 2), 1, False, 4, 1, 20, [2, 3], 28, 4),
}
SECONDS = (
    1.0  # a temporal patch of a video takes, what transformers' processor gives by default (two frames, 2 a second)
)


def config_dict(shape: str) -> dict:
    heads, kv_heads, head_dim, section, layers, tied, *vision = SHAPES[shape]
    return {
        "model_type": "qwen2_5_vl" if shape.startswith("2.5") else "qwen2_vl",
        "vocab_size": 97,
        "hidden_size": heads * head_dim,
        "intermediate_size": 3 * heads * head_dim // 2,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": list(section)},
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": tied,
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
        "vision_start_token_id": START,
        "vision_end_token_id": END,
        "bos_token_id": 95,
        "eos_token_id": 96,
        "vision_config": vision_config(heads * head_dim, *vision),
    }


def vision_config(text_width: int, layers: int, heads: int, head_dim: int, *windows) -> dict:
    shared, width = {"depth": layers, "num_heads": heads}, heads * head_dim
    if not windows:
        return {**shared, "embed_dim": width, "hidden_size": text_width, "mlp_ratio": 2}
    own = dict(zip(("fullatt_block_indexes", "window_size", "tokens_per_second"), windows, strict=True))
    return {**shared, **own, "hidden_size": width, "out_hidden_size": text_width, "intermediate_size": width + 6}


def torch_model(shape: str, attention: str = "eager", seed: int = 0) -> PreTrainedModel:
    """Random float32 model with weights large enough for attention and every bias to matter."""
    torch.manual_seed(seed)
    name = "Qwen2_5_VL" if shape.startswith("2.5") else "Qwen2VL"
    config = getattr(transformers, f"{name}Config")(**config_dict(shape), attn_implementation=attention)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).float().eval()
    with torch.no_grad():
        for name, param in model.named_parameters():
            if name.endswith("bias"):
                param.normal_(0, 0.2)
            elif param.ndim == 1:
                param.normal_(1, 0.2)
            elif "embed_tokens" in name or "lm_head" in name:
                param.normal_(0, 0.3)
            else:
                param.normal_(0, param[0].numel() ** -0.5)
    return model


def our_params(model: PreTrainedModel) -> tuple[ModelConfig, dict]:
    tensors = {hub_name(name): value.detach().numpy() for name, value in model.state_dict().items()}
    config = ModelConfig.from_hf(model.config.to_dict())
    return config, params_from(config, tensors, tensors.__getitem__, "torch model")


@dataclasses.dataclass
class Sample:
    """One sequence as transformers takes it, and as our side does."""

    inputs: dict[str, torch.Tensor]
    positions_S3: np.ndarray
    patches_PC: np.ndarray  # uint8, window by window where the model has windows
    hw_P2: np.ndarray
    frame_P: np.ndarray  # from 1
    pixel_values: np.ndarray  # the processor's, in the same order, (P, C)
    merged_V: np.ndarray  # which four patches, of those in order, make the vision tokens
    frames: list[np.ndarray]  # of each image or video, (T, height, width, 3) uint8

    @property
    def tokens(self) -> np.ndarray:
        return self.inputs["input_ids"][0].numpy()


def make_sample(model: PreTrainedModel, parts: list, seed: int = 0, pictures: list[np.ndarray] | None = None) -> Sample:
    """parts: n = n text tokens; (h, w) = an image; (t, h, w) = a video of t frames; sides are multiples of 28.
    pictures: the frames of the images and videos in order, else random."""
    rng = np.random.default_rng(seed)
    processor = Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=10**6)
    ids, types, patches, pixels, hws, frames, all_grids, shown = [], [], [], [], [], [], [], []
    grids: dict[str, list] = {"image": [], "video": []}
    values: dict[str, list] = {"image": [], "video": []}
    for part in parts:
        if isinstance(part, int):
            ids += rng.integers(0, IMAGE, part).tolist()
            types += [0] * part
            continue
        kind = "image" if len(part) == 2 else "video"
        count = 1 if kind == "image" else part[0]
        images = rng.integers(0, 256, (count, *part[-2:], 3), dtype=np.uint8)
        images = images if pictures is None else pictures[len(shown)]
        shown.append(images)
        out = processor(list(images), return_tensors="np")
        h, w = out["image_grid_thw"][0, 1:].tolist()
        value = _pair_frames(out["pixel_values"].reshape(count, h * w, 3, 2, 14, 14))
        grid_t = len(value) // (h * w)
        # what uint8 the processor saw, undone from its float output
        mean, std = (
            np.asarray(x, np.float32)[:, None, None, None] for x in (processor.image_mean, processor.image_std)
        )
        u8 = np.rint((value.reshape(-1, 3, 2, 14, 14) * std + mean) * 255)
        patches.append(u8.reshape(len(value), -1).astype(np.uint8))
        pixels.append(value)
        hws.append(np.tile(_block_major(h, w), (grid_t, 1)))
        frames += [np.full(h * w, len(frames) + 1 + i) for i in range(grid_t)]
        grids[kind].append([grid_t, h, w])
        all_grids.append([grid_t, h, w])
        values[kind].append(value)
        ids += [START, *[IMAGE if kind == "image" else VIDEO] * (grid_t * h * w // 4), END]
        types += [0, *[1 if kind == "image" else 2] * (grid_t * h * w // 4), 0]
    inputs = {"input_ids": torch.tensor([ids]), "mm_token_type_ids": torch.tensor([types], dtype=torch.int32)}
    for kind, name in (("image", "pixel_values"), ("video", "pixel_values_videos")):
        if grids[kind]:
            inputs[f"{kind}_grid_thw"] = torch.tensor(grids[kind])
            inputs[name] = torch.tensor(np.concatenate(values[kind]))
    if grids["video"] and model.config.model_type == "qwen2_5_vl":
        inputs["second_per_grid_ts"] = torch.tensor([SECONDS] * len(grids["video"]))
    rope = {k: v for k, v in inputs.items() if not k.startswith("pixel")}
    positions, _ = model.model.get_rope_index(**rope)
    order_V = window_order(model, all_grids)
    order_P = (order_V[:, None] * 4 + np.arange(4)).reshape(-1)
    return Sample(
        inputs,
        positions[:, 0].T.numpy(),
        (np.concatenate(patches) if patches else np.zeros((0, 1176), np.uint8))[order_P],
        (np.concatenate(hws) if hws else np.zeros((0, 2), int))[order_P],
        (np.concatenate(frames) if frames else np.zeros(0, int))[order_P],
        (np.concatenate(pixels) if pixels else np.zeros((0, 1176), np.float32))[order_P],
        np.argsort(order_V),
        shown,
    )


def window_order(model: PreTrainedModel, grids: list) -> np.ndarray:
    """Numbers of the merged patches of these grids, window by window where the model has windows."""
    vision = model.config.vision_config
    if not grids or model.config.model_type != "qwen2_5_vl":
        return np.arange(sum(t * h * w for t, h, w in grids) // 4)
    return get_vision_window_index(torch.tensor(grids), 2, vision.window_size, vision.patch_size)[0].numpy()


def _pair_frames(frames_NPCTHW: np.ndarray) -> np.ndarray:
    """Patches of single images (their frame repeated in time) -> patches of pairs of frames; one image stays."""
    if len(frames_NPCTHW) == 1:
        return frames_NPCTHW.reshape(frames_NPCTHW.shape[1], -1)
    pairs = np.stack([frames_NPCTHW[0::2, :, :, 0], frames_NPCTHW[1::2, :, :, 0]], axis=3)
    return pairs.reshape(pairs.shape[0] * pairs.shape[1], -1)


def _block_major(h: int, w: int) -> np.ndarray:
    """(row, column) of the patches of an h x w grid in the processor's order, written as plain loops."""
    order = [(2 * i + a, 2 * j + b) for i in range(h // 2) for j in range(w // 2) for a in range(2) for b in range(2)]
    return np.array(order)


def pack(rows: list[list[Sample]], *, tokens: int | None = None, patches: int | None = None) -> Batch:
    """Rows of samples -> Batch, padded to `tokens` and `patches` (default: 5 tokens and 4 patches of padding).

    Every token but the last of a sample carries loss weight 1.
    """
    tokens = tokens or max(sum(len(s.tokens) for s in row) for row in rows) + 5
    patches = max(sum(len(s.patches_PC) for s in row) for row in rows) + 4 if patches is None else patches
    batch = empty_batch(len(rows), tokens, patches, 1176)
    for b, row in enumerate(rows):
        t = p = frame = 0
        for number, sample in enumerate(row, start=1):
            ts, ps = slice(t, t + len(sample.tokens)), slice(p, p + len(sample.patches_PC))
            batch.tokens_BS[b, ts] = sample.tokens
            batch.positions_BS3[b, ts] = sample.positions_S3
            batch.segments_BS[b, ts] = number
            batch.targets_BS[b, t : ts.stop - 1] = sample.tokens[1:]
            batch.weights_BS[b, t : ts.stop - 1] = 1
            vision = np.isin(sample.tokens, (IMAGE, VIDEO))
            batch.vision_index_BS[b, ts][vision] = p // 4 + sample.merged_V
            batch.patches_BPC[b, ps] = sample.patches_PC
            batch.patch_hw_BP2[b, ps] = sample.hw_P2
            batch.patch_segments_BP[b, ps] = frame + sample.frame_P
            frame += sample.frame_P.max(initial=0)
            t, p = ts.stop, ps.stop
    return check_batch(batch)
