"""User-defined classes in a new process, from the user's folder."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from marsretrieval.encoders import load

OPEN_CLIP = """
import open_clip
import torch

class Tower:
    def __init__(self):
        torch.manual_seed(0)
        self.model = open_clip.CLIP(
            embed_dim=16,
            vision_cfg={"image_size": 32, "layers": 1, "width": 64, "patch_size": 8},
            text_cfg={"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2,
                      "layers": 1},
        ).eval()
        self.transform = open_clip.image_transform(32, is_train=False)
        self.tokenize = open_clip.SimpleTokenizer()

    @torch.inference_mode()
    def encode_images(self, images):
        return self.model.encode_image(torch.stack([self.transform(i) for i in images]))

    @torch.inference_mode()
    def encode_texts(self, texts):
        return self.model.encode_text(self.tokenize(texts))
"""

TIMM = """
import timm
import torch

class Tower:
    def __init__(self):
        torch.manual_seed(0)
        self.model = timm.create_model(
            "vit_tiny_patch16_224", pretrained=False, img_size=32, depth=1, num_classes=0
        ).eval()
        self.transform = timm.data.create_transform((3, 32, 32))

    def preprocess(self, image):
        return self.transform(image)

    @torch.inference_mode()
    def encode_preprocessed(self, features):
        return self.model(torch.stack(list(features)))

    def encode_images(self, images):
        return self.encode_preprocessed([self.preprocess(image) for image in images])
"""


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).parent / "marsretrieval"), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize("code", [OPEN_CLIP, TIMM], ids=["open_clip", "timm"])
def test_a_class_that_imports_a_vision_library_works(code: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(code)
    done = command(tmp_path, "models", "check", "mine:Tower", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["problems"] == []


def test_preprocessing_of_a_class_runs_in_a_fresh_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tower_of_timm.py").write_text(TIMM)
    monkeypatch.chdir(tmp_path)
    Path("preprocess.pkl").write_bytes(pickle.dumps(load("tower_of_timm:Tower").preprocess))
    script = """
import pickle, sys
assert "torchvision" not in sys.modules
preprocess = pickle.load(open("preprocess.pkl", "rb"))
from PIL import Image
print(tuple(preprocess(Image.new("RGB", (50, 40))).shape))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "(3, 32, 32)", done.stderr
