"""transformers' processors and positions of both model families, in this process, without torchvision.

Their image processor is the one that resizes in Pillow. A processor insists on a video processor, which only
torchvision can make, so the class's check of its parts is answered with yes and videos are left to another test.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl, processing_qwen2_5_vl
from transformers.models.qwen2_vl import modeling_qwen2_vl, processing_qwen2_vl
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

FAMILIES = {
    "qwen2_vl": (processing_qwen2_vl.Qwen2VLProcessor, modeling_qwen2_vl, "Qwen2VL"),
    "qwen2_5_vl": (processing_qwen2_5_vl.Qwen2_5_VLProcessor, modeling_qwen2_5_vl, "Qwen2_5_VL"),
}


@functools.cache
def auto_tokenizer(directory: Path) -> Any:
    return AutoTokenizer.from_pretrained(directory)


@dataclasses.dataclass
class Oracle:
    processor: Any
    modeling: Any
    name: str

    def prepare(self, text: str, images: list[Any]) -> dict[str, np.ndarray]:
        """Everything the model's forward takes, and `positions` (S, 3)."""
        out = self.processor(text=[text], images=images or None, return_tensors="np")
        values = {key: np.asarray(value) for key, value in out.items()}
        return values | {"positions": self.positions(values)}

    def positions(self, prepared: dict[str, np.ndarray], second_per_grid_ts: list[float] | None = None) -> np.ndarray:
        model = getattr(self.modeling, f"{self.name}Model")
        config = getattr(self.modeling, f"{self.name}Config")()
        config.vision_config.tokens_per_second = 2  # as published; the class says 4
        stand_in = type("Model", (), {"config": config, "get_vision_position_ids": model.get_vision_position_ids})()
        tensors = {key: torch.tensor(prepared[key]) for key in ("input_ids", "mm_token_type_ids")}
        for key in ("image_grid_thw", "video_grid_thw"):
            tensors[key] = torch.tensor(prepared[key]) if key in prepared else None
        more = {} if second_per_grid_ts is None else {"second_per_grid_ts": torch.tensor(second_per_grid_ts)}
        return model.get_rope_index(stand_in, **tensors, **more)[0][:, 0].T.numpy()


def oracle(family: str, tokenizer: Any, pixels: dict[str, Any]) -> Oracle:
    """tokenizer: of `auto_tokenizer`. pixels: what preprocessor_config.json holds."""
    processor, modeling, name = FAMILIES[family]
    without_check = type(processor.__name__, (processor,), {"check_argument_for_proper_class": lambda *_: object})
    made = without_check(Qwen2VLImageProcessorPil(**pixels), tokenizer, None)
    return Oracle(made, modeling, name)
