"""What the tests of the host side know of each family, and patches brought to a form that both sides share."""

import numpy as np

from data_pipelines.example import Example

# The numbers of the published models, as fields of Processing.
FAMILIES = {
    "qwen2_vl": {},
    "qwen2_5_vl": {"window": 8, "tokens_per_second": 2, "boxes": "resized"},
}
MEAN, STD = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])


def levels(pixel_values_PC: np.ndarray) -> np.ndarray:
    """The reference's normalised patches as levels 0..255, float64."""
    values = pixel_values_PC.reshape(len(pixel_values_PC), 3, -1).astype(np.float64)
    return ((values * STD[:, None] + MEAN[:, None]) * 255).reshape(len(values), -1)


def row_by_row(example: Example) -> np.ndarray:
    """patches_PC in the order of their tokens, as the reference has them, whatever the order for windows."""
    index = example.vision_index_S[example.vision_index_S >= 0]
    values = example.patches_PC.shape[1]
    return example.patches_PC.reshape(-1, 4, values)[index].reshape(-1, values)
