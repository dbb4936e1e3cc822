"""Qwen2.5-VL (arXiv 2502.13923): Qwen2-VL with another vision tower and an RMSNorm in the projector.

The decoder is the same. What else is new is on the host side: the order of the patches, positions in step with the
time of a video, and boxes in pixels of the resized image (data_pipelines: image.py, positions.py, speech.py).
"""

from flax import nnx

from umit_jax.model.config import ModelConfig
from umit_jax.model.decoder import Decoder
from umit_jax.model.layers import RMSNorm
from umit_jax.model.projector import Projector
from umit_jax.model.qwen2_vl import Qwen2VL
from umit_jax.model.vision_2_5 import NORM_EPS, Qwen25VisionConfig, WindowedVisionTower


class Qwen25VL(Qwen2VL):
    def __init__(self, config: ModelConfig):
        nnx.Module.__init__(self)
        assert isinstance(config.vision, Qwen25VisionConfig), config.vision
        self.config = config
        self.vision = WindowedVisionTower(config.vision)
        self.projector = Projector(config, RMSNorm(config.vision.width, NORM_EPS))
        self.decoder = Decoder(config)
