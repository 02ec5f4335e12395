"""The commands of the published README run from a checkout."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from marsretrieval.encoders import find
from marsretrieval.tasks import find_task
from tests.warm_command import warm_command

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "scripts"
PUBLISHED = (Path(__file__).parent / "published_commands.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", PUBLISHED, re.DOTALL)
NAMES = [
    f"{folder}/{name}"
    for folder, names in re.findall(r"^    scripts/(\w+): (.*)$", PUBLISHED, re.MULTILINE)
    for name in names.split()
]
VISION_ONLY = {"aimv2_vis.sh", "dinov3.sh"}

# A class of one's own without torch: light enough to run every path for real.
BRIGHTNESS = """
class Vision:
    def encode_images(self, images):
        return [[*image.convert("L").resize((2, 2)).tobytes(), 255] for image in images]

class Brightness(Vision):
    def encode_texts(self, texts):
        return [[len(text), 128, 128, 128, 255] for text in texts]
"""
# Stands for marsretrieval where there are GPUs; keeps a list of its calls.
PRETENDS = """#!/bin/bash
echo "${CUDA_VISIBLE_DEVICES-} $*" >> "$CALLS"
if [ "$1" = doctor ]; then echo "$DOCTOR"; exit; fi
if [[ " $* " == *" --shard ${FAILING-none}"* ]]; then echo "no memory" >&2; exit 1; fi
args=(); for word in "$@"; do [ "$word" = cuda ] && word=cpu; args+=("$word"); done
exec "$REAL" "${args[@]}"
"""
DOCTOR = json.dumps({"torch": {"devices": ["cpu", "cuda:0 One", "cuda:1 Two"]}})

Bash = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def command() -> Iterator[Path]:
    """Start a process that runs marsretrieval in forks, where the scripts are the subject."""
    with warm_command() as program:
        yield program


@pytest.fixture
def environment(tiny_planet: Path, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "bright.py").write_text(BRIGHTNESS)
    hidden = {"CUDA_VISIBLE_DEVICES", "MARSRETRIEVAL_MODEL", "MARSRETRIEVAL_ENGINE"}
    return {
        **{key: value for key, value in os.environ.items() if key not in hidden},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(tmp_path),
        "MARSRETRIEVAL_DATA": str(tiny_planet),
        "MARSRETRIEVAL_RESULTS": str(tmp_path / "results"),
        "MARSRETRIEVAL_LOGS": str(tmp_path / "logs"),
    }


@pytest.fixture
def bash(environment: dict[str, str], tmp_path: Path) -> Bash:
    """Run bash in a folder outside the checkout."""

    def call(
        *arguments: object, cwd: Path = tmp_path, **more: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", *map(str, arguments)],
            cwd=cwd,
            env=environment | more,
            capture_output=True,
            text=True,
            check=False,
        )

    return call


@pytest.fixture
def checkout(environment: dict[str, str], tmp_path: Path, command: Path) -> Path:
    """Create a checkout without .venv, and a fake marsretrieval with two GPUs on the PATH."""
    root = tmp_path / "a checkout"
    shutil.copytree(SCRIPTS, root / "scripts")
    bin_folder = root / "bin"
    bin_folder.mkdir()
    (bin_folder / "marsretrieval").write_text(PRETENDS)
    (bin_folder / "marsretrieval").chmod(0o755)
    (bin_folder / "python").symlink_to(sys.executable)
    environment |= {
        "PATH": f"{bin_folder}:/usr/bin:/bin",
        "CALLS": str(root / "calls"),
        "DOCTOR": DOCTOR,
        "REAL": str(command),
    }
    return root


@pytest.fixture
def plain_checkout(environment: dict[str, str], tmp_path: Path, command: Path) -> Path:
    """Create a checkout without .venv, and marsretrieval without GPUs on the PATH."""
    root = tmp_path / "plain checkout"
    shutil.copytree(SCRIPTS, root / "scripts")
    environment |= {"PATH": f"{command.parent}:/usr/bin:/bin"}
    return root


def scripted(name: str) -> tuple[str, list[str]]:
    """Return (task, models) of a script, which must contain nothing else."""
    lines = (SCRIPTS / name).read_text().splitlines()
    assert len(lines) == 2
    call = re.fullmatch(
        r'exec bash "\$\(dirname "\$\{BASH_SOURCE\[0\]\}"\)/\.\./_run\.sh" (\S+) (.+) -- "\$@"',
        lines[1],
    )
    assert call, lines[1]
    return call[1], call[2].split()


def calls(checkout: Path) -> list[str]:
    return (checkout / "calls").read_text().splitlines()


def test_scripts_equal_the_published_scripts() -> None:
    ours = {str(path.relative_to(SCRIPTS)) for path in SCRIPTS.glob("*/*.sh")}
    assert ours == set(NAMES)
    assert len(NAMES) == 35


@pytest.mark.parametrize("name", NAMES)
def test_script_names_only_a_task_and_models(name: str) -> None:
    folder, models = scripted(name)
    assert folder == name.split("/")[0]
    task, records = find_task(folder), [find(model) for model in models]
    with_text = [record for record in records if "text" in record.modalities]
    assert (not with_text) == (Path(name).name in VISION_ONLY)
    assert with_text or task.name == "geolocalization"


def test_openclip_is_pe_core_and_offers_three_more() -> None:
    for folder in {name.split("/")[0] for name in NAMES}:
        assert [find(model).name for model in scripted(f"{folder}/openclip.sh")[1]] == [
            "PE-Core-L-14-336",
            "DFN2B-CLIP-ViT-L-14",
            "ViT-L-16-SigLIP-384",
            "ViT-L-16-SigLIP2-512",
        ]


@pytest.mark.parametrize("block", BLOCKS, ids=["paired", "landform", "geolocalization"])
def test_commands_of_the_published_readme_in_dry_run(
    block: str, plain_checkout: Path, bash: Bash, tmp_path: Path
) -> None:
    lines = [
        f"{line} --dry-run" if line.startswith("bash ") else line for line in block.splitlines()
    ]
    done = bash("-ec", "\n".join(lines), cwd=plain_checkout)
    assert done.returncode == 0, done.stderr
    ran = [line for line in lines if line.startswith("bash ")]
    assert done.stdout.count(": to do\n") == len(ran)
    for line in ran:
        _, models = scripted(line.split()[1].removeprefix("scripts/"))
        assert f"{models[0]} on " in done.stdout
    assert ("would build the database on GPUs 0, 1, 2, 3, 4, 5, 6, 7" in done.stderr) == (
        "0,1,2" in block
    )
    assert not (tmp_path / "results").exists()
    assert not (tmp_path / "logs").exists()


def test_landforms_for_real(bash: Bash, tmp_path: Path) -> None:
    script = SCRIPTS / "landform_retrieval" / "openclip.sh"
    once = bash(script, "cpu", MARSRETRIEVAL_MODEL="bright:Brightness")
    assert once.returncode == 0, once.stderr
    assert "mAP" in once.stdout
    again = bash(script, MARSRETRIEVAL_MODEL="bright:Brightness")
    assert "running on the CPU" in again.stderr
    assert "this run is in it already" in again.stderr
    rows = list(csv.DictReader((tmp_path / "logs/landform_retrieval/summary.csv").open()))
    result = json.loads((tmp_path / "results/bright-Brightness/landform.json").read_text())
    assert len(rows) == 1
    figures = result["metrics"]["all"]["published"]
    for name in ("mAP", "r_precision", "ndcg@10", "hit@10"):
        assert float(rows[0][name]) == pytest.approx(100 * figures[name], abs=1e-4)
    assert rows[0]["n"] == "48"


def test_geolocalization_of_a_vision_only_model_uses_image_queries_only(
    plain_checkout: Path, bash: Bash, tmp_path: Path
) -> None:
    script = plain_checkout / "scripts" / "geolocalization" / "dinov3.sh"
    done = bash(script, "cpu", "--resamples", "0", MARSRETRIEVAL_MODEL="bright:Vision")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "logs/geolocalization/summary.csv").open()))
    assert {row["query"] for row in rows} == {"image"}
    assert [row["landform"] for row in rows] == [
        "alluvial_fans",
        "glacier-like_form",
        "landslides",
        "pitted_cones",
        "yardangs",
    ]
    assert list(rows[0])[-6:] == ["f1", "precision", "recall", "auprc", "k_at_best", "request"]


def test_pairs_as_json(plain_checkout: Path, bash: Bash) -> None:
    script = plain_checkout / "scripts" / "paired_image_text_retrieval" / "gme.sh"
    done = bash(
        script, "cpu", "--json", "--resamples", "0", MARSRETRIEVAL_MODEL="bright:Brightness"
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["results"]) == 1


def test_several_gpus_build_the_database_in_parts(
    checkout: Path, bash: Bash, tmp_path: Path
) -> None:
    script = checkout / "scripts" / "geolocalization" / "marscope.sh"
    done = bash(
        script,
        "0,1",
        "--resamples=0",
        "--batch-size=32",
        MARSRETRIEVAL_MODEL="bright:Brightness",
        MARSRETRIEVAL_ENGINE="shards",
    )
    assert done.returncode == 0, done.stderr
    embeds = sorted(call for call in calls(checkout) if " embed " in call)
    assert [call.split()[0] for call in embeds] == ["0", "1"]
    assert [call.split("--shard ")[1] for call in embeds] == ["1/2", "2/2"]
    assert all("--device cuda --batch-size=32" in call for call in embeds)
    run = next(call for call in calls(checkout) if call.startswith("0 run "))
    assert "--device cuda --resamples=0" in run
    result = json.loads((tmp_path / "results/bright-Brightness/geolocalization.json").read_text())
    assert "images_per_s" not in result["timings"]  # nothing was left to embed
    rows = list(csv.DictReader((tmp_path / "logs/geolocalization/summary.csv").open()))
    assert {row["query"] for row in rows} == {"text", "image"}
    assert len(rows) == 10


def test_failed_part_is_completed(checkout: Path, bash: Bash) -> None:
    script = checkout / "scripts" / "geolocalization" / "marscope.sh"
    settings = {"MARSRETRIEVAL_MODEL": "bright:Vision", "MARSRETRIEVAL_ENGINE": "shards"}
    done = bash(script, "1,0", "--resamples", "0", FAILING="2/2", **settings)
    assert done.returncode == 0, done.stderr
    assert "no memory" in done.stderr
    assert "made up" in done.stderr


def test_script_fails_if_all_parts_fail(checkout: Path, bash: Bash) -> None:
    script = checkout / "scripts" / "geolocalization" / "marscope.sh"
    done = bash(
        script,
        "0,1",
        FAILING="",
        MARSRETRIEVAL_MODEL="bright:Vision",
        MARSRETRIEVAL_ENGINE="shards",
    )
    assert done.returncode == 1
    assert "could not be built on any of the GPUs" in done.stderr
    assert not any(" run " in call and "--dry-run" not in call for call in calls(checkout))


@pytest.mark.slow
def test_several_gpus_build_the_database_with_ray(checkout: Path, bash: Bash) -> None:
    script = checkout / "scripts" / "geolocalization" / "marscope.sh"
    done = bash(
        script,
        "0,1",
        "--resamples",
        "0",
        MARSRETRIEVAL_MODEL="mars-nano",
        MARSRETRIEVAL_ENGINE="ray",
    )
    assert done.returncode == 0, done.stderr
    assert "800 embedded now" in done.stderr


def test_small_tasks_use_the_first_gpu(checkout: Path, bash: Bash) -> None:
    script = checkout / "scripts" / "landform_retrieval" / "gme.sh"
    done = bash(script, "1,0", "--resamples", "0", MARSRETRIEVAL_MODEL="bright:Brightness")
    assert done.returncode == 0, done.stderr
    assert "this task needs one GPU: using 1" in done.stderr
    assert [call.split()[:2] for call in calls(checkout)[:2]] == [["1,0", "doctor"], ["1", "run"]]


@pytest.mark.parametrize(
    ("visible", "device"),
    [("1", "cuda"), ("-1", "cpu"), ("", "cpu"), ("GPU-1a-2b", "cuda")],
)
def test_visible_devices_are_used_without_ids(
    visible: str, device: str, checkout: Path, bash: Bash
) -> None:
    script = checkout / "scripts" / "landform_retrieval" / "gme.sh"
    done = bash(script, "--dry-run", CUDA_VISIBLE_DEVICES=visible)
    assert done.returncode == 0, done.stderr
    assert f"--device {device} --dry-run" in calls(checkout)[0]
    assert ("running on the CPU" in done.stderr) == (device == "cpu")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["0,x"], 2, "'x' is no GPU id"),
        (["0,,1"], 2, "'' is no GPU id"),
        (["0,0"], 2, "an id comes twice"),
        (["0", "siglip"], 2, "vit-l-16-siglip2-512"),
        (["0", "1"], 2, "with commas between them: 0,1,2,3"),
        (["0", "siglip2", "more"], 2, "unexpected argument 'more'"),
        (["0", "-m", "gme"], 2, "the script sets model and task"),
        (["0", "--no-such-option", "--dry-run"], 2, "--no-such-option"),
        (["0,1,2"], 1, "torch sees 2 of 3"),
        (["0", "--data", "nowhere"], 1, "nowhere: no such folder"),
    ],
)
def test_invalid_arguments_are_reported(
    arguments: list[str], code: int, message: str, checkout: Path, bash: Bash
) -> None:
    done = bash(checkout / "scripts" / "geolocalization" / "openclip.sh", *arguments)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_model_is_chosen_by_argument_or_variable(checkout: Path, bash: Bash) -> None:
    script = checkout / "scripts" / "landform_retrieval" / "openclip.sh"
    argument_lists = [["SigLIP2-512"], ["siglip-384"], ["dfn2b"], ["PE-Core"]]
    # Only the calls are of interest here: the commands themselves are run for real above.
    for item in argument_lists:
        bash(script, "0", *item, "--dry-run", REAL="true")
    bash(script, "0", "--dry-run", REAL="true", MARSRETRIEVAL_MODEL="DFN2B")
    bash(script, "0", "--dry-run", REAL="true", MARSRETRIEVAL_MODEL="gme")
    assert [item.split(" -m ")[1].split()[0] for item in calls(checkout)] == [
        "vit-l-16-siglip2-512",
        "vit-l-16-siglip-384",
        "dfn2b-clip-vit-l-14",
        "pe-core-l-14-336",
        "dfn2b-clip-vit-l-14",
        "gme",
    ]


def test_without_marsretrieval_the_remedy_is_named(checkout: Path, bash: Bash) -> None:
    done = bash(checkout / "scripts/landform_retrieval/gme.sh", "0", PATH="/usr/bin:/bin")
    assert done.returncode == 1
    assert "marsretrieval is not installed" in done.stderr
    assert "make venv" in done.stderr


def test_interrupts_are_handled_by_the_program(
    checkout: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    program = checkout / "bin" / "marsretrieval"
    program.write_text(
        "#!/bin/bash\ntrap 'sleep 1; touch tidied; exit 130' INT\ntouch started\n"
        "while :; do sleep 0.1; done\n"
    )
    script = checkout / "scripts" / "landform_retrieval" / "gme.sh"
    process = subprocess.Popen(
        ["bash", str(script), "cpu"], cwd=tmp_path, env=environment, start_new_session=True
    )
    while not (tmp_path / "started").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(timeout=20) == 130
    assert (tmp_path / "tidied").exists()


def test_help_names_models_and_variables(bash: Bash) -> None:
    help_text = bash(SCRIPTS / "geolocalization" / "openclip.sh", "--help").stdout
    for word in ("siglip2", "DATA", "RESULTS", "LOGS", "MODEL", "ENGINE"):
        assert word in help_text
