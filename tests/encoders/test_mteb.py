"""Models of MTEB's registry with MTEB's loaders, on tiny checkpoints of their architectures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from marsretrieval import evaluation
from marsretrieval.encoders import Encoder, LoadOptions, check_encoder, find, load
from marsretrieval.encoders.torch_imports import ensure_torchvision
from marsretrieval.errors import (
    MissingDependencyError,
    ModalityError,
    ModelLoadError,
    UnknownNameError,
    UsageError,
)
from marsretrieval.tasks import Settings, find_task
from tests.encoders.tiny_transformers import pictures, save_tiny

pytestmark = pytest.mark.usefixtures("mteb")

CLIP = "openai/clip-vit-base-patch32"
TEXTS = ["dunes", "a satellite photo of glacier-like forms."]


@pytest.fixture(scope="module")
def mteb() -> Any:
    """Import the library when a test needs it: it takes seconds, and each worker collects."""
    ensure_torchvision()
    return pytest.importorskip("mteb")


@pytest.fixture
def clip(tiny_folder: Callable[[str], Path]) -> Encoder:
    """MTEB's loader of CLIP on a tiny checkpoint in place of the published one."""
    return load(f"mteb:{CLIP}", LoadOptions(device="cpu", checkpoint=tiny_folder("clip")))


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Add a model to MTEB's registry and return its name in this package."""
    from mteb.models.model_implementations import MODEL_REGISTRY

    def register(name: str, loader: Any, **changes: Any) -> str:
        meta = MODEL_REGISTRY[CLIP].model_copy(
            update={"name": name, "loader": loader, "revision": "abc123", **changes}
        )
        monkeypatch.setitem(MODEL_REGISTRY, name, meta)
        return f"mteb:{name}"

    return register


def as_mteb_does(mteb: Any, wrapper: Any, column: str, items: list[Any], kind: str) -> np.ndarray:
    """Encode with MTEB's data loader, as in its evaluation."""
    import datasets
    from mteb._create_dataloaders import create_dataloader
    from mteb.types import PromptType

    task = mteb.get_task("MarsVLPairsT2IRetrieval").metadata
    inputs = create_dataloader(
        datasets.Dataset.from_dict({column: items, "id": list(map(str, range(len(items))))}),
        task_metadata=task,
    )
    vectors = wrapper.encode(
        inputs, task_metadata=task, hf_split="test", hf_subset="default",
        prompt_type=PromptType(kind), show_progress_bar=False,
    )  # fmt: skip
    rows = np.asarray(vectors, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_vectors_are_those_of_mteb(
    mteb: Any, clip: Encoder, tiny_folder: Callable[[str], Path]
) -> None:
    meta = mteb.get_model_meta(CLIP)
    wrapper = meta.loader(str(tiny_folder("clip")), revision=None, device="cpu")
    colour = [picture.convert("RGB") for picture in pictures()]
    expected = as_mteb_does(mteb, wrapper, "image", colour, "document")
    assert np.abs(clip.encode_images(pictures()) - expected).max() < 1e-5
    expected = as_mteb_does(mteb, wrapper, "text", TEXTS, "query")
    assert np.abs(clip.encode_texts(TEXTS) - expected).max() < 1e-5


def test_a_batch_equals_one_by_one_in_unit_rows(clip: Encoder) -> None:
    together = clip.encode_images(pictures())
    assert together.dtype == np.float32 and together.shape == (5, clip.dimension)
    assert np.abs(np.linalg.norm(together, axis=1) - 1).max() < 1e-6
    alone = np.concatenate([clip.encode_images([picture]) for picture in pictures()])
    assert np.abs(together - alone).max() < 1e-5
    many = [f"{text} {number}" for number in range(40) for text in TEXTS]
    alone = np.concatenate([clip.encode_texts([text]) for text in many])
    assert np.abs(clip.encode_texts(many) - alone).max() < 1e-5
    assert check_encoder(clip)["problems"] == []
    assert clip.encode_images([]).shape == (0, clip.dimension)


def test_spec_follows_mteb_metadata(mteb: Any) -> None:
    record, meta = find(f"mteb:{CLIP.upper()}"), mteb.get_model_meta(CLIP)
    assert record.id == f"mteb:{CLIP}"
    assert (record.revision, record.dimension) == (meta.revision, meta.embed_dim)
    assert (record.parameters, record.context_length) == (meta.n_parameters, 77)
    assert record.modalities == {"image", "text"}
    assert find("mteb:facebook/dinov2-small").modalities == {"image"}


def test_the_revision_and_the_weights_are_in_the_fingerprint(
    mteb: Any, registered: Callable[..., str], tiny_folder: Callable[[str], Path], clip: Encoder
) -> None:
    folder = str(tiny_folder("clip"))
    calls = []

    def loader(name: str, revision: str | None, **more: Any) -> Any:
        calls.append((name, revision, more))
        return mteb.get_model_meta(CLIP).loader(folder, revision=None, **more)

    encoder = load(registered("tiny/clip", loader), LoadOptions(device="cpu"))
    assert calls == [("tiny/clip", "abc123", {"device": "cpu"})]
    fingerprint = encoder.fingerprint
    assert fingerprint["revision"] == "abc123" and fingerprint["dtype"] == "float32"
    assert fingerprint["weights_sha256"] == clip.fingerprint["weights_sha256"]
    assert clip.fingerprint["revision"] is None  # a folder of one's own is of none
    assert fingerprint["prompts"]["task"] == "MarsVLPairsT2IRetrieval"


def test_loader_without_device_argument(
    mteb: Any, registered: Callable[..., str], tiny_folder: Callable[[str], Path], clip: Encoder
) -> None:
    def loader(name: str, revision: str | None) -> Any:
        return mteb.get_model_meta(CLIP).loader(str(tiny_folder("clip")), revision, device="cpu")

    encoder = load(registered("tiny/clip", loader), LoadOptions(device="cpu"))
    assert encoder.fingerprint["weights_sha256"] == clip.fingerprint["weights_sha256"]


def test_requested_precision_is_used(tiny_folder: Callable[[str], Path], clip: Encoder) -> None:
    options = LoadOptions(device="cpu", checkpoint=tiny_folder("clip"), dtype="bfloat16")
    half = load(f"mteb:{CLIP}", options)
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.bfloat16}  # type: ignore[attr-defined]
    assert half.fingerprint["dtype"] == "bfloat16"
    cosines = (half.encode_images(pictures()) * clip.encode_images(pictures())).sum(axis=1)
    assert cosines.min() > 0.99
    assert half.fingerprint["weights_sha256"] != clip.fingerprint["weights_sha256"]


def test_prompts_saved_with_a_sentence_transformers_model_are_used(
    registered: Callable[..., str], tmp_path: Path
) -> None:
    from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
    from sentence_transformers import SentenceTransformer

    save_tiny("clip", tmp_path / "clip")
    model = SentenceTransformer(str(tmp_path / "clip"), device="cpu")
    model.prompts = {"query": "find: ", "document": ""}
    model.save_pretrained(str(tmp_path / "saved"))
    name = registered("tiny/st", SentenceTransformerEncoderWrapper)
    encoder = load(name, LoadOptions(device="cpu", checkpoint=tmp_path / "saved"))
    assert encoder.fingerprint["prompts"]["model_prompts"]["query"] == "find: "
    for role, text in (("query", "find: dunes"), ("caption", "dunes")):
        expected = model.encode([text], normalize_embeddings=True)
        assert np.abs(encoder.encode_texts(["dunes"], role=role) - expected).max() < 1e-5
    expected = model.encode(pictures(), normalize_embeddings=True)
    assert np.abs(encoder.encode_images(pictures()) - expected).max() < 1e-5


def test_model_without_weights_is_supported() -> None:
    name = "mteb:mteb/baseline-random-encoder"
    encoder = load(name, LoadOptions(device="cpu"))
    assert encoder.fingerprint["weights_sha256"] is None
    assert encoder.encode_images(pictures()).shape == (5, encoder.dimension)
    with pytest.raises(UsageError, match="not a torch model"):
        load(name, LoadOptions(device="cpu", dtype="bfloat16"))


def test_model_without_text_encoder_is_reported(
    mteb: Any, registered: Callable[..., str], tiny_folder: Callable[[str], Path]
) -> None:
    name = registered("tiny/eyes", mteb.get_model_meta(CLIP).loader, modalities=["image"])
    encoder = load(name, LoadOptions(device="cpu", checkpoint=tiny_folder("clip")))
    assert encoder.encode_images(pictures()).shape == (5, encoder.dimension)
    with pytest.raises(ModalityError, match="vision-only"):
        encoder.encode_texts(TEXTS)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("openai/clip-vit-base-patch23", UnknownNameError, "clip-vit-base-patch32"),
        ("siglip2-large", UnknownNameError, "google/siglip2-large-patch16"),
        ("sentence-transformers/all-MiniLM-L6-v2", ModelLoadError, "text only"),
        ("vidore/colpali-v1.3", ModelLoadError, "one vector"),
    ],
)
def test_impossible_requests_are_refused_before_loading(
    name: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        find(f"mteb:{name}")


def test_without_mteb_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mteb", None)
    with pytest.raises(MissingDependencyError, match=r"marsretrieval\[mteb\]"):
        find(f"mteb:{CLIP}")


def test_offline_makes_no_requests() -> None:
    from huggingface_hub import constants

    with pytest.raises(ModelLoadError, match="cannot load it"):
        load(f"mteb:{CLIP}", LoadOptions(device="cpu", offline=True))
    assert constants.HF_HUB_OFFLINE is False


def test_weights_that_would_be_random_are_an_error(tmp_path: Path) -> None:
    save_tiny("clip", tmp_path / "clip")
    file = tmp_path / "clip" / "model.safetensors"
    state = load_file(file)
    del state["text_projection.weight"]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(ModelLoadError, match=r"1 weight missing, .*text_projection"):
        load(f"mteb:{CLIP}", LoadOptions(device="cpu", checkpoint=tmp_path / "clip"))


@pytest.fixture
def with_code(tmp_path: Path) -> Path:
    """Write a checkpoint with a class in a Python file that records its execution."""
    save_tiny("clip", tmp_path / "clip")
    config = tmp_path / "clip" / "config.json"
    value = json.loads(config.read_text())
    value["auto_map"] = {"AutoModel": "code.Ran", "AutoConfig": "code.Config"}
    value["model_type"] = "of-its-own"
    config.write_text(json.dumps(value))
    (tmp_path / "clip" / "code.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(tmp_path / 'ran')!r}).touch()\n"
        "from transformers import CLIPConfig, CLIPModel\n"
        "class Config(CLIPConfig):\n    model_type = 'of-its-own'\n"
        "class Ran(CLIPModel):\n    config_class = Config\n"
    )
    return tmp_path


@pytest.mark.parametrize("unasked", [True, False], ids=["loader trusts", "loader asks"])
def test_repository_code_is_not_run_by_default(
    registered: Callable[..., str],
    with_code: Path,
    unasked: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers import AutoModel, dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(with_code / "modules"))
    monkeypatch.syspath_prepend(str(with_code / "modules"))

    def loader(name: str, revision: str | None, device: str, **more: Any) -> Any:
        AutoModel.from_pretrained(name, **({"trust_remote_code": True} if unasked else more))
        raise AssertionError("it was loaded")

    name = registered("tiny/code", loader, loader_kwargs={"trust_remote_code": True})
    options = LoadOptions(device="cpu", checkpoint=with_code / "clip")
    with pytest.raises(ModelLoadError) as refused:
        load(name, options)
    assert "--trust-remote-code" in str(refused.value)
    assert not (with_code / "ran").exists()
    with pytest.raises(ModelLoadError):
        load(name, replace(options, trust_remote_code=True))
    assert (with_code / "ran").exists()


def test_a_failing_wrapper_is_named(
    mteb: Any, registered: Callable[..., str], tiny_folder: Callable[[str], Path]
) -> None:
    class Broken(mteb.get_model_meta(CLIP).loader):  # type: ignore[misc]
        def get_image_embeddings(self, *inputs: Any, **more: Any) -> Any:
            raise ValueError("no such layer\nand more")

    with pytest.raises(ModelLoadError, match=r"Broken fails on images \(ValueError: no such layer"):
        options = LoadOptions(device="cpu", checkpoint=tiny_folder("clip"))
        load(registered("tiny/broken", Broken), options)


def test_a_task_runs_on_it(
    mteb: Any, tiny_planet: Path, tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    jobs = evaluation.plan(
        [find(f"mteb:{CLIP}")],
        [find_task("paired")],
        data=tiny_planet,
        results=tmp_path / "results",
        options=LoadOptions(device="cpu", checkpoint=tiny_folder("clip")),
        settings=Settings(resamples=20),
    )
    (finished,) = evaluation.run(jobs)
    assert finished.error is None and finished.result is not None
    result = finished.result
    assert result.model["id"] == f"mteb:{CLIP}"
    assert result.versions["mteb"] == mteb.__version__
    pairs = result.data["n"]["pairs"]
    assert 1 <= result.metrics["all"]["strict"]["t2i_medr"] <= pairs
    assert result.metrics["all"]["strict"]["t2i_mrr"] > 1 / pairs
