"""Multimodal language models as encoders: E5-V, GME, Ops-MM, VLM2Vec, B3, jina-v4, Qwen3-VL."""

from marsretrieval.encoders.multimodal_lm._encoder import MultimodalEncoder
from marsretrieval.encoders.multimodal_lm._load import load
from marsretrieval.encoders.multimodal_lm._recipe import Recipe

__all__ = ["MultimodalEncoder", "Recipe", "load"]
