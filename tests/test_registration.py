"""Each test imports in a fresh process, in an order of its own."""

import os
import subprocess
import sys

import pytest

from echomen_hf import EchoMENModel


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    from echomen_hf import EchoMENVideoProcessor
    from helpers.tiny_config import make_tiny_config

    folder = tmp_path_factory.mktemp("tiny") / "model"
    config = make_tiny_config()
    EchoMENModel(config).save_pretrained(folder)
    EchoMENVideoProcessor.for_model(config).save_pretrained(folder)
    return folder


def run(program, *arguments):
    child = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert child.returncode == 0, child.stderr[-3000:]
    return child.stdout.split()


# Without `trust_remote_code`: what is loaded is the installed class, or the load fails.
LOAD = """
import sys
assert type(AutoModel.from_pretrained(sys.argv[1])).__module__ == "echomen_hf.model.modeling_echomen"
assert type(pipeline("ejection-fraction", model=sys.argv[1])).__module__ == "echomen_hf.model.pipeline_echomen"
print("loaded")
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import echomen_hf; from transformers import AutoModel, pipeline",
        "from transformers import AutoModel, pipeline; import echomen_hf",
        *(
            pytest.param(f"{first}; from transformers import AutoModel, pipeline", marks=pytest.mark.slow)
            for first in (
                "from echomen_hf.modeling_echomen import EchoMENModel",
                "import echomen_hf.model.pipeline_echomen",
                "from echomen_hf.inference import Predictor",
                "from echomen_hf.training import fit",
                "import echomen_hf, transformers.trainer",
            )
        ),
    ],
)
def test_auto_classes_know_the_model_in_any_order_of_imports(imports, model_folder):
    assert run(imports + LOAD, model_folder) == ["loaded"]


def test_import_from_a_thread(model_folder):
    program = """
import threading, echomen_hf
def load():
    global AutoModel, pipeline
    from transformers import AutoModel, pipeline
thread = threading.Thread(target=load)
thread.start()
thread.join()
"""
    assert run(program + LOAD, model_folder) == ["loaded"]


@pytest.mark.parametrize("imports", ["import echomen_hf", "import echomen_hf.cli"])
def test_import_alone_loads_no_large_library(imports):
    check = "; import sys; print(*({'torch', 'transformers', 'numpy', 'datasets'} & sys.modules.keys()))"
    assert run(imports + check) == []


def test_what_needs_no_transformers_does_not_import_it():
    assert run("from echomen_hf import read_video; import sys; print('transformers' in sys.modules)") == ["False"]
