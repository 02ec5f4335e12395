from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marsretrieval.encoders import LoadOptions, check_encoder, find, load
from marsretrieval.encoders.torch_imports import ensure_torchvision
from marsretrieval.errors import ModelLoadError, UsageError
from tests.encoders.tiny_transformers import pictures, save_tiny

pytestmark = pytest.mark.usefixtures("st")

TEXTS = ["dunes", "a satellite photo of glacier-like forms."]


@pytest.fixture(scope="module")
def st() -> Any:
    """Import the library when a test needs it: it takes seconds, and each worker collects."""
    ensure_torchvision()
    return pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module")
def folder(st: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a CLIP checkpoint like sentence-transformers, with prompts."""
    root = tmp_path_factory.mktemp("st")
    save_tiny("clip", root / "clip")
    model = st.SentenceTransformer(str(root / "clip"), device="cpu")
    model.prompts = {"query": "find: ", "document": ""}
    model.save_pretrained(str(root / "saved"))
    return root / "saved"


def test_a_model_by_name_gives_the_vectors_of_the_library(st: Any, folder: Path) -> None:
    record = find(f"st:{folder}")
    assert record.modalities == {"image", "text"}
    encoder = load(record, LoadOptions(device="cpu"))
    model = st.SentenceTransformer(str(folder), device="cpu")
    expected = {
        "images": model.encode_document(pictures(), normalize_embeddings=True),
        "query": model.encode_query(TEXTS, normalize_embeddings=True),
        "caption": model.encode_document(TEXTS, normalize_embeddings=True),
    }
    assert np.abs(encoder.encode_images(pictures()) - expected["images"]).max() < 1e-6
    for role in ("query", "caption"):
        vectors = encoder.encode_texts(TEXTS, role=role)
        assert vectors.dtype == np.float32 and vectors.shape == (2, encoder.dimension)
        assert np.abs(vectors - expected[role]).max() < 1e-6
    assert np.abs(expected["query"] - expected["caption"]).max() > 1e-3
    assert encoder.fingerprint["prompts"]["saved"]["query"] == "find: "


def test_a_batch_equals_one_by_one(folder: Path) -> None:
    encoder = load("st:any-name", LoadOptions(device="cpu", checkpoint=folder))
    alone = np.concatenate([encoder.encode_images([picture]) for picture in pictures()])
    assert np.abs(encoder.encode_images(pictures()) - alone).max() < 1e-5


def test_non_model_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelLoadError, match="cannot load"):
        load(f"st:{tmp_path}", LoadOptions(device="cpu"))
    with pytest.raises(ModelLoadError, match="not in the local cache"):
        load("st:nobody/nothing", LoadOptions(device="cpu", offline=True))


@pytest.fixture(scope="module")
def embedding_gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("gemma")
    save_tiny("embedding_gemma2", root / "model")
    return root / "model"


def test_embeddinggemma_has_the_width_of_its_projection(embedding_gemma: Path) -> None:
    encoder = load("embeddinggemma-2", LoadOptions(device="cpu", checkpoint=embedding_gemma))
    assert encoder.dimension == 24  # its tokens have 32
    assert check_encoder(encoder)["problems"] == []
    with pytest.raises(UsageError, match="overflows in float16"):
        load("embeddinggemma-2", replace(encoder.options, dtype="float16"))


def test_wemm_is_qwen3_5_with_the_rules_of_its_tokenizer(st: Any, tmp_path: Path) -> None:
    """transformers rebuilds the normalizer, which removes a newline at the end."""
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    save_tiny("qwen3_5", tmp_path / "model")
    full_model = Transformer(str(tmp_path / "model"))
    st.SentenceTransformer(
        modules=[full_model, Pooling(64, pooling_mode="lasttoken")]
    ).save_pretrained(str(tmp_path / "saved"))
    rules = json.loads((tmp_path / "saved" / "tokenizer.json").read_text())
    rules["normalizer"] = {"type": "Replace", "pattern": {"Regex": "\\n$"}, "content": ""}
    (tmp_path / "saved" / "tokenizer.json").write_text(json.dumps(rules))
    encoder = load("wemm-embedding-2b", LoadOptions(device="cpu", checkpoint=tmp_path / "saved"))
    assert encoder.dimension == 64
    assert check_encoder(encoder)["problems"] == []
    backend = encoder._encode[0].processor.tokenizer.backend_tokenizer
    assert backend.normalizer.normalize_str("dunes\n") == "dunes"
    alone = np.concatenate([encoder.encode_images([picture]) for picture in pictures()])
    assert np.abs(encoder.encode_images(pictures()) - alone).max() < 1e-5
