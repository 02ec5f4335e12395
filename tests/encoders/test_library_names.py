"""Names of open_clip, transformers and timm: what they mean, and what a wrong one suggests."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from marsretrieval.encoders import LoadOptions, find, find_load_error, load
from marsretrieval.encoders.library_names import list_names
from marsretrieval.errors import ModelLoadError, UnknownNameError, UsageError
from tests.encoders.tiny import save_checkpoint, save_folder, tiny_config
from tests.encoders.tiny_transformers import pictures

TEXTS = ["dunes", "layered rock near the pole"]
GELU, QUICK = "oc:ViT-L-14-gelu", "oc:ViT-L-14-quickgelu"


@pytest.fixture
def narrowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give real architectures of open_clip tiny towers."""
    import open_clip.factory

    plain = {**tiny_config("clip"), "quick_gelu": False}
    kinds: dict[str, dict[str, Any]] = {
        "ViT-L-14": plain, "ViT-L-14-quickgelu": tiny_config("clip"), "ViT-H-14": plain,
        "PE-Core-bigG-14-448": tiny_config("pe"),
    }  # fmt: skip
    for architecture, config in kinds.items():
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, architecture, config)


@pytest.fixture
def hub_requests(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Answer every request to the hub with one folder, named as a commit."""
    requests: list[dict[str, Any]] = []

    def download(repository: str, **arguments: Any) -> str:
        requests.append({"repository": repository, **arguments})
        return str(hub(tmp_path))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return requests


def hub(tmp_path: Path) -> Path:
    return tmp_path / ("b" * 40)


@pytest.mark.parametrize(
    ("name", "id", "repository", "activation"),
    [
        ("oc:vit_l_14/OPENAI", "oc:ViT-L-14/openai",
         "timm/vit_large_patch14_clip_224.openai", "quickgelu"),
        ("oc:ViT-L-14/laion2b_s32b_b82k", "oc:ViT-L-14/laion2b_s32b_b82k",
         "laion/CLIP-ViT-L-14-laion2B-s32B-b82K", "gelu"),
        ("oc:ViT-L-14-GELU", GELU, "open_clip, ViT-L-14", "gelu"),
        (QUICK, QUICK, "open_clip, ViT-L-14-quickgelu", "quickgelu"),
        ("oc:ViT-L-16-SigLIP2-512/webli", "oc:ViT-L-16-SigLIP2-512/webli",
         "timm/ViT-L-16-SigLIP2-512", None),
        ("timm:Test_ViT.r160_in1k", "timm:test_vit.r160_in1k", "timm/test_vit.r160_in1k", None),
        ("hf:facebook/dinov2-base", "hf:facebook/dinov2-base", "facebook/dinov2-base", None),
    ],
)  # fmt: skip
def test_name_becomes_a_spec(name: str, id: str, repository: str, activation: str | None) -> None:
    spec = find(name)
    assert (spec.id, spec.repository) == (id, repository)
    assert spec.settings.get("activation") == activation
    assert find(spec.id) == spec
    assert ("text" in spec.modalities) == (not name.startswith("timm"))


def test_revision_of_a_repository() -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert find(f"hf:a/b@{commit}").revision == commit
    branch = find("hf:a/b@v1.0")
    assert (branch.revision, branch.settings["revision"], branch.repository) == (
        None, "v1.0", "a/b",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("siglip-384", "Did you mean vit-l-16-siglip-384"),
        ("ViT-SO400M-14-SigLIP-384", "Did you mean oc:ViT-SO400M-14-SigLIP-384"),
        ("test_vit.r160", "Did you mean timm:test_vit.r160_in1k"),
        ("oc:ViT-L14-336x", "Did you mean oc:ViT-L-14-336"),
        ("oc:ViT-L-14/openia", "Did you mean oc:ViT-L-14/openai"),
        ("timm:test_vitt", "Did you mean timm:test_vit"),
        ("oc:ViT-L-16-SigLIP2-512-gelu", "Did you mean oc:ViT-L-16-SigLIP2-512"),
        ("oc:siglip2", "Did you mean oc:ViT-B-16-SigLIP2 "),  # not SigLIP-256
        ("timm:efficientnet_lite", "Did you mean timm:efficientnet_lite0"),
        ("facebook/dinov2-base", "Did you mean hf:facebook/dinov2-base"),
        ("openai/clip-vit-large-patch14", "Did you mean hf:openai/clip-vit-large-patch14"),
        ("ViT-L-14/openai", "Did you mean oc:ViT-L-14/openai"),
    ],
)
def test_unknown_name_suggests_those_of_all_sources(name: str, words: str) -> None:
    with pytest.raises(UnknownNameError) as raised:
        find(name)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("mars-nanno", "mars-nano"),
        ("mars-nano-untraned", "mars-nano-untrained"),
        ("remote-clip-vitl-14", "remoteclip-vit-l-14"),
    ],
)
def test_misspelled_registered_name_needs_no_library(
    name: str, similar: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("marsretrieval.encoders.library_names.list_names", pytest.fail)
    with pytest.raises(UnknownNameError) as raised:
        find(name)
    assert f"Did you mean {similar}?" in str(raised.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("timm:", "no name after 'timm:'"),
        ("hff:facebook/dinov2-base", "Did you mean hf:facebook/dinov2-base"),
        ("hf:clip", "not a repository"),
        ("hf:./nowhere", "no such folder"),
        ("hf:a/b@", "no revision after @"),
        ("oc:ViT-L-14-quickgelu/laion2b_s32b_b82k", "trained with gelu, not quickgelu"),
        ("oc:ViT-L-14-gelu/openai", "trained with quickgelu, not gelu"),
    ],
)
def test_name_that_contradicts_itself_is_refused(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        find(name)


def test_every_published_name_of_open_clip_is_found() -> None:
    names = list_names("oc")
    specs = [find(name) for name in names]
    assert len({spec.id.lower() for spec in specs}) == len(names) > 300
    with pytest.raises(UsageError, match="cannot be listed"):
        list_names("hf")


# Checkpoint files


def test_one_file_gives_other_vectors_with_the_other_activation(
    narrowed: None, tmp_path: Path
) -> None:
    """No library reports the difference, so the name has to state the activation."""
    options = LoadOptions(device="cpu", checkpoint=save_checkpoint("clip", tmp_path / "epoch.pt"))
    vectors = {}
    for name, activation in ((GELU, "gelu"), (QUICK, "quickgelu")):
        encoder = load(name, options)
        assert encoder.fingerprint["activation"] == activation
        vectors[name] = encoder.encode_images(pictures())
    assert np.abs(vectors[GELU] - vectors[QUICK]).max() > 1e-3

    error = find_load_error(find("oc:ViT-L-14"), options)
    assert isinstance(error, ModelLoadError)
    assert "does not state its activation" in str(error)
    assert f"{QUICK} (" in str(error) and f"{GELU} (" in str(error)
    with pytest.raises(ModelLoadError, match="does not state its activation"):
        load("oc:ViT-L-14", options)

    started = load("oc:ViT-L-14/openai", options)  # from whose weights the training started
    assert np.array_equal(started.encode_images(pictures()), vectors[QUICK])


def test_an_architecture_needs_weights() -> None:
    error = find_load_error(find("oc:ViT-L-14"), LoadOptions(device="cpu"))
    assert "without weights" in str(error) and "openai" in str(error)
    with pytest.raises(ModelLoadError, match="without weights"):
        load("oc:ViT-L-14-quickgelu", LoadOptions(device="cpu"))


def test_published_weights_come_from_the_hub(
    narrowed: None, hub_requests: list[dict[str, Any]], tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    path = save_checkpoint("clip", tmp_path / "epoch.pt", prefix="")
    hub(tmp_path).mkdir()
    state = torch.load(path, weights_only=True)["state_dict"]
    save_file(state, hub(tmp_path) / "open_clip_model.safetensors")
    encoder = load("oc:ViT-L-14/openai", LoadOptions(device="cpu", offline=True))
    (request,) = hub_requests
    assert request["repository"] == "timm/vit_large_patch14_clip_224.openai"
    assert request["local_files_only"] is True
    fingerprint = encoder.fingerprint
    assert (fingerprint["id"], fingerprint["revision"]) == ("oc:ViT-L-14/openai", "b" * 40)
    assert fingerprint["activation"] == "quickgelu" and len(fingerprint["weights_sha256"]) == 64
    assert fingerprint["preprocessing"]["mean"][0] == pytest.approx(0.48145466)
    same = load(QUICK, LoadOptions(device="cpu", checkpoint=path))
    assert np.array_equal(encoder.encode_texts(TEXTS), same.encode_texts(TEXTS))


def test_nothing_on_the_hub_is_an_error(hub_requests: list[dict[str, Any]], tmp_path: Path) -> None:
    hub(tmp_path).mkdir()
    with pytest.raises(ModelLoadError, match="holds none of open_clip_model"):
        load("oc:ViT-L-14/openai", LoadOptions(device="cpu"))


# Models of the registry with weights in a file of the repository.


@pytest.mark.parametrize("model", ["remoteclip-vit-l-14", "georsclip-vit-h-14"])
def test_remote_sensing_models_are_read_from_their_file_with_gelu(
    model: str, narrowed: None, hub_requests: list[dict[str, Any]], tmp_path: Path
) -> None:
    spec = find(model)
    file = hub(tmp_path) / spec.settings["file"]
    file.parent.mkdir(parents=True)
    save_checkpoint("clip", file, prefix="")
    tiny = replace(spec, image_size=32, dimension=24)
    encoder = load(tiny, LoadOptions(device="cpu"))
    assert hub_requests[0]["allow_patterns"] == [spec.settings["file"]]
    assert encoder.fingerprint["activation"] == "gelu"
    assert encoder.fingerprint["revision"] == "b" * 40
    same = load(GELU, LoadOptions(device="cpu", checkpoint=file))
    assert np.array_equal(encoder.encode_images(pictures()), same.encode_images(pictures()))
    with pytest.raises(ModelLoadError, match="dimension 24, not"):
        load(spec, LoadOptions(device="cpu"))


def test_pe_core_bigg_from_a_checkpoint(narrowed: None, tmp_path: Path) -> None:
    path = save_checkpoint("pe", tmp_path / "epoch.pt")
    encoder = load("pe-core-bigg-14-448", LoadOptions(device="cpu", checkpoint=path))
    alone = np.concatenate([encoder.encode_images([picture]) for picture in pictures()])
    assert np.abs(encoder.encode_images(pictures()) - alone).max() < 1e-5
    assert encoder.fingerprint["preprocessing"]["interpolation"] == "bilinear"


@pytest.mark.parametrize("model", ["vit-so400m-16-siglip2-512", "vit-gopt-16-siglip2-384"])
def test_siglip2_from_a_repository(
    model: str, hub_requests: list[dict[str, Any]], tmp_path: Path
) -> None:
    save_folder("siglip2", hub(tmp_path))
    tiny = replace(find(model), image_size=32, dimension=32)
    encoder = load(tiny, LoadOptions(device="cpu"))
    assert encoder.encode_texts(["Dunes!"]) == pytest.approx(encoder.encode_texts(["dunes"]))
    words = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    assert np.abs(encoder.encode_texts(TEXTS) - words).max() < 1e-5


@pytest.mark.parametrize(
    ("model", "architecture"),
    [
        ("pe-core-bigg-14-448", "PE-Core-bigG-14-448"),
        ("vit-so400m-16-siglip2-512", "ViT-SO400M-16-SigLIP2-512"),
        ("vit-gopt-16-siglip2-384", "ViT-gopt-16-SigLIP2-384"),
        ("remoteclip-vit-l-14", "ViT-L-14"),
        ("georsclip-vit-h-14", "ViT-H-14"),
    ],
)
def test_registry_states_the_architecture_of_open_clip(model: str, architecture: str) -> None:
    import open_clip

    spec, config = find(model), open_clip.get_model_config(architecture)
    assert spec.settings["architecture"] == architecture
    assert spec.dimension == config["embed_dim"]
    assert spec.context_length == config["text_cfg"]["context_length"]
    assert spec.image_size == config["vision_cfg"]["image_size"]
    kind = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    with torch.device("meta"):
        full_model = kind(**config)
    assert sum(parameter.numel() for parameter in full_model.parameters()) == spec.parameters


# The command line


@pytest.mark.parametrize("library", ["oc", "hf", "timm"])
def test_named_model_is_benchmarked(
    library: str,
    narrowed: None,
    tiny_folder: Callable[[str], Path],
    tiny_planet: Path,
    tmp_path: Path,
    marsretrieval: Callable[..., Any],
) -> None:
    """`run` with a tiny checkpoint of each library gives a result under the model's name."""
    arguments: list[object] = []
    if library == "oc":
        name = GELU
        arguments = ["--checkpoint", save_checkpoint("clip", tmp_path / "epoch.pt")]
    elif library == "hf":
        name = f"hf:{tiny_folder('siglip')}"
    else:
        import timm

        name = "timm:test_vit.r160_in1k"
        weights = timm.create_model("test_vit", pretrained=False).state_dict()
        torch.save(weights, tmp_path / "epoch.pt")
        arguments = ["--checkpoint", tmp_path / "epoch.pt", "--queries", "images"]
    marsretrieval(
        "run", "-m", name, "-t", "landform", "--data", tiny_planet, "--limit", 12,
        "--results", tmp_path / "results", "--device", "cpu", "--resamples", 10, *arguments,
    )  # fmt: skip
    (file,) = (tmp_path / "results").glob("*/landform*.json")
    result = json.loads(file.read_text())
    assert result["model"]["id"] == name
    assert result["model"]["revision"] is None and len(result["model"]["weights_sha256"]) == 64
    (evaluation,) = result["metrics"].values()
    assert 0 < evaluation["strict"]["mAP"] <= 1
    assert evaluation["n"]["images"] == 12
