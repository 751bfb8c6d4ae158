"""The device of a stage."""

import pytest
import torch

from vold.execution import Execution
from vold.training.runtime import prepare_device


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_missing_gpu_is_refused_naming_the_setting(device: str) -> None:
    with pytest.raises(ValueError, match=r"execution\.device is cuda.* finds no GPU"):
        prepare_device(Execution(device=device))
