"""Every shell and Python block of the README and of the pages runs.

The blocks of a page run in order, in one folder, with one Python namespace. Three things differ from what a reader
does, so that this takes seconds: recipes are shrunk (see `shrink`), simulated videos are few and short (see
`commands_of`), and scripts run in this process instead of one of their own or of several under `accelerate launch`;
the web page is built and not served. `test_tutorial_in_a_shell` starts real processes.
"""

import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from echomen_hf.cli import invoke
from helpers.documents import PAGES, Block, blocks_of, read_page


SENDS = "publishes on the Hub; tests/hub does so on a loopback server"
SERVES = "serves a page until it is interrupted"
MEASURES = "takes an hour; tests/benchmarks run it in small"
INSTALLS = "changes the environment that the tests run in; .ci/run installs the package in this way"

LONG_RUN = "echomen simulate --output runs/comparison_data --num_videos 1500 \\"
CAUSES_RUN = "echomen simulate --output runs/no_noise_data --num_videos 1500 --label_noise 0 --seed 42"
PAPER_RUN = "echomen compare --recipe paper --data_dir EchoNet-Dynamic \\"
NOT_RUN = {
    ("README.md", "make demo   # everything once on synthetic data: simulate, train, evaluate, predict, reload"): (
        "takes minutes; tests/cli/test_demo.py runs its script"
    ),
    ("README.md", "pip install -e ."): INSTALLS,
    ("docs/performance.md", "python -m benchmarks.speed --output runs/benchmark --write_docs"): MEASURES,
    ("docs/performance.md", "accelerate launch --config_file scripts/accelerate_configs/multi_node.yaml \\"): (
        "needs two machines with GPUs; tests/benchmark checks its configuration"
    ),
    ("docs/index.md", "pip install -e ."): INSTALLS,
    ("docs/comparison.md", LONG_RUN): "takes hours; tests/comparison and the other blocks of the page run its parts",
    ("docs/comparison.md", CAUSES_RUN): "takes hours; tests/comparison and the other blocks of the page run its parts",
    ("docs/comparison.md", "python -m benchmarks.seed_tests runs/comparison --method echonet"): (
        "needs several seeds; tests/benchmarks/test_seed_tests.py runs it"
    ),
    (
        "docs/comparison.md",
        "python -m benchmarks.experts runs/table --data_dir runs/table_data --frame_cache runs/table_frames \\",
    ): "needs the encoders of a comparison; tests/benchmarks/experts runs its parts",
    ("docs/encoders.md", "echomen embed --model src/echomen_hf/checkpoints/small --data_dir runs/table_data \\"): (
        "takes a quarter of an hour; the other blocks of the page run the same commands"
    ),
    ("docs/comparison.md", PAPER_RUN): "takes days on GPUs; its schedule is tested in tests/comparison",
    ("docs/echonet_dynamic.md", "echomen import-weights r2plus1d_18_32_2_pretrained.pt --output runs/echonet"): (
        "needs a network of full size; tests/hub/test_imported_weights.py runs it, and the rest in small"
    ),
    ("docs/outline.md", "echomen train-outline --output_dir runs/outline --seed 2 --bf16 --use_cpu"): (
        "takes an hour; tests/cli/test_outline_commands.py runs both commands in small"
    ),
    (
        "docs/results/plan.md",
        "echomen simulate --output runs/table_data --num_videos 6000 --label_noise 4 --seed 42 --max_frames 160",
    ): "takes days; tests/comparison run its parts",
    ("docs/publishing.md", "hf auth login"): SENDS,
    ("docs/publishing.md", "from echomen_hf import EchoMENModel"): SENDS,
    ("docs/publishing.md", "from transformers import pipeline"): (
        "loads a repository that does not exist; tests/hub loads a published one without the package"
    ),
    ("docs/small_model.md", "echomen train small \\"): (
        "takes six hours; tests/training/test_training_data.py trains on simulated videos, and "
        "tests/scripts/test_teach_outlines.py with their outlines"
    ),
    ("docs/small_model.md", "python -m benchmarks.simulation_realism --profile wide --num_videos 96 \\"): (
        "takes a minute; tests/benchmarks/test_simulation_realism.py measures the same"
    ),
    (
        "docs/small_model.md",
        "python -m benchmarks.sector --num_exports 500 --seed 1 --output outputs/sector",
    ): "takes minutes; tests/benchmarks/test_sector.py measures the same",
    (
        "docs/small_model.md",
        "python scripts/examine_on_public_clips.py dynamic/docs/media --output docs/small_model/public_clips.md",
    ): "needs clips that are not here; tests/scripts run it on drawn ones",
    (
        "docs/small_model.md",
        "python -m benchmarks.short_videos --model src/echomen_hf/checkpoints/small --num_videos 200 "
        "--output outputs/short_videos",
    ): "takes minutes; tests/benchmarks/test_short_videos.py measures the same",
    (
        "docs/small_model.md",
        "python -m benchmarks.quality --model src/echomen_hf/checkpoints/small --num_videos 200 --num_others 20 "
        "--output outputs/quality",
    ): "takes minutes; tests/benchmarks/test_quality.py measures the same",
    (
        "docs/small_model.md",
        "python -m benchmarks.quality --model src/echomen_hf/checkpoints/small --num_videos 200 --num_others 20 "
        "--outline --output outputs/outlined",
    ): "takes minutes; tests/benchmarks/test_quality.py measures the same",
    (
        "docs/small_model.md",
        "python -m benchmarks.frame_rates --model src/echomen_hf/checkpoints/small --output outputs/frame_rates",
    ): "takes minutes; tests/benchmarks/test_frame_rates.py measures the same",
    (
        "docs/speed.md",
        "python -m benchmarks.training_switches cost --output runs/switch_cost --num_steps 1 --switches \\",
    ): MEASURES,
    (
        "docs/speed.md",
        "OMP_NUM_THREADS=1 python -m benchmarks.training_switches accuracy --data_dir runs/demo/data \\",
    ): MEASURES,
    ("docs/tracking.md", "tensorboard --logdir runs/tracked"): SERVES,
    ("docs/tracking.md", "trackio show --project echomen"): SERVES,
}
"""Reason by page and first line of the block."""


def key(block: Block) -> tuple[str, str]:
    return block.page, block.first_line


BLOCKS = {page: blocks_of(page) for page in PAGES}
RUN = {page: [block for block in blocks if key(block) not in NOT_RUN] for page, blocks in BLOCKS.items()}


def commands_of(text: str, num_videos: int = 24) -> list[list[str]]:
    """The commands of a shell block as words, with small numbers in the place of large ones."""
    commands = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if not words:
            continue
        if "--num_videos" in words:
            words[words.index("--num_videos") + 1] = str(num_videos)
        if words[:2] in (["python", "scripts/make_synthetic_echonet.py"], ["echomen", "simulate"]):
            words += ["--max_frames", "60", "--num_workers", "1"]
        commands.append(words)
    return commands


def run_here(words: list[str]) -> None:
    """Run a command in this process: `echomen`, or a script or benchmark, perhaps by `accelerate launch`."""
    names = [word for word in words if re.fullmatch(r"scripts/\w+\.py|benchmarks\.\w+", word)]
    if words[0] == "echomen":
        status = invoke(words[1:])
    elif names and (words[0] == "python" or words[:2] == ["accelerate", "launch"]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", words[words.index(names[0]) :])
            with pytest.raises(SystemExit) as end:
                run = runpy.run_path if names[0].endswith(".py") else runpy.run_module
                run(names[0], run_name="__main__")
        status = end.value.code
    else:
        raise AssertionError(f"The tests cannot run {shlex.join(words)!r}; give the reason in NOT_RUN.")
    assert status == 0, f"{shlex.join(words)} ended with status {status}"


def serves(text: str) -> bool:
    return "scripts/app.py" in text or "echomen app" in text


@pytest.fixture
def here(workspace, monkeypatch, tmp_path):
    """A folder for the blocks of a page, which is the current one, and from which nothing gets out."""
    folder = workspace()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    handler = signal.getsignal(signal.SIGTERM)
    yield folder
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def served(monkeypatch):
    """Pages that would have been served."""
    layout = pytest.importorskip("echomen_hf.app.layout", reason="needs the extra `app`", exc_type=ImportError)
    pages: list = []
    monkeypatch.setattr(layout.EchoMENApp, "launch", lambda page, **options: pages.append((page, options)))
    return pages


def pages_to_run() -> list:
    # Their commands, with other flags, are in the README and the tutorial, or run in small in tests of their own.
    slow = ("comparison", "my_hospital", "small_model", "speed", "tracking", "web_app")
    marks = {page: [pytest.mark.slow] if Path(page).stem in slow else [] for page in RUN}
    return [pytest.param(page, marks=marks[page]) for page, blocks in RUN.items() if blocks]


@pytest.mark.parametrize("page", pages_to_run())
def test_blocks_of_page(page, here, served):
    namespace: dict = {"__name__": "page"}
    for block in RUN[page]:
        printed = StringIO()
        with redirect_stdout(printed):
            if block.language == "python":
                exec(compile(block.text, str(block), "exec"), namespace)
            else:
                # An adaptation needs 30 for training and validation.
                for words in commands_of(block.text, 40 if page == "docs/my_hospital.md" else 24):
                    run_here(words)
        if block.output is not None and "runs/demo/" not in block.text:  # a tiny model says other things
            assert printed.getvalue() == block.output, str(block)
    starts = sum(serves(block.text) for block in RUN[page])
    assert len(served) == starts


def test_training_leaves_the_files_that_the_tutorial_lists(demo_run):
    table = read_page("docs/tutorial.md").split("| File | Content |")[1]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    names = [name.rstrip("/") for row in rows for name in re.findall("`(.*?)`", row)]
    assert "model.safetensors" in names
    for name in names:
        assert list((demo_run / "model").glob(name)), name


@pytest.mark.slow
def test_tutorial_in_a_shell(here):
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    program: list[str] = []
    for block in BLOCKS["docs/tutorial.md"]:
        if block.language == "python":
            # The blocks share their names; a reader types them into one session.
            program.append(block.text)
            commands = [[sys.executable, "-c", "\n".join(program)]] if "runs/tutorial" in block.text else []
        else:
            commands = [words for words in commands_of(block.text) if not serves(shlex.join(words))]
        for words in commands:
            child = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240)
            assert child.returncode == 0, f"{block}: {child.stderr[-2000:]}"
    assert "Dry run: nothing was published." in child.stdout
    assert (here / "runs" / "predictions.csv").is_file()


def test_exceptions_are_exactly_these_blocks():
    exceptions = [key(block) for blocks in BLOCKS.values() for block in blocks if key(block) in NOT_RUN]
    assert sorted(exceptions) == sorted(NOT_RUN)
    assert all(NOT_RUN.values())


def test_a_block_that_cannot_run_is_noticed():
    with pytest.raises(AssertionError, match="give the reason in NOT_RUN"):
        run_here(["curl", "https://example.org"])
