"""Where a stage computes."""

import pytest
import torch

from vold.config import Execution
from vold.training.runtime import prepare_device


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_gpu_that_is_not_there_is_refused_by_the_settings_name(device: str) -> None:
    with pytest.raises(ValueError, match=r"execution\.device is cuda.* finds no GPU"):
        prepare_device(Execution(device=device))
