"""The memory of the machine that a run is meant for: GPUs by name, or the GPUs or RAM of this machine."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import Literal

# MiB as nvidia-smi reports them (rocm-smi for AMD). A memory after the name ("A100 40 GB") takes precedence.
_MEMORY = {
    "B300": 275_040, "B200": 183_359, "H200": 143_771, "H100 NVL": 95_830, "H100": 81_559, "H800": 81_559,
    "A100": 81_920, "A800": 81_920, "L40S": 46_068, "L40": 46_068, "A40": 46_068, "RTX 6000 ADA": 49_140,
    "A6000": 49_140, "RTX 5090": 32_607, "RTX 4090": 24_564, "RTX 3090": 24_576, "A10": 23_028, "L4": 23_034,
    "V100": 16_384, "T4": 15_360, "MI300X": 196_592,
}  # fmt: skip
_COUNT = re.compile(r"^\s*(\d+)\s*[x×*]\s*(.+)$|^(.+?)(?<=[\d\s])[x×*]\s*(\d+)\s*$", re.IGNORECASE)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(GB|GIB)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Device:
    """``count`` equal devices of ``memory`` bytes each."""

    name: str
    memory: int
    count: int = 1
    kind: Literal["cuda", "cpu"] = "cuda"

    def __str__(self) -> str:
        return f"{self.count} x {self.name} ({self.memory / 1e9:.0f} GB each)" if self.kind == "cuda" else self.name


def parse_device(text: str) -> Device:
    """The device that ``H200 x 8``, ``8 x A100 80 GB`` or ``48GB`` describes.

    Raises ValueError for an unknown GPU, with the names of the known ones.
    """
    split = _COUNT.match(text)
    left, right, name, count = map(str, split.groups("")) if split else ("", "", text, "1")
    name, number = (right, int(left)) if left else (name, int(count))
    size = _SIZE.search(name)
    plain = re.sub(r"[\s_-]+", " ", name).strip().upper()
    model = next((key for key in sorted(_MEMORY, key=len, reverse=True) if re.search(rf"\b{key}\b", plain)), None)
    if number < 1 or (size is None and model is None):
        raise ValueError(
            f"GPU {text!r} is not known; give its memory, such as '48 GB x 2', or one of {', '.join(sorted(_MEMORY))}"
        )
    stated = model is not None and (size is None or abs(float(size[1]) - _MEMORY[model] / 1024) < 8)
    memory = _MEMORY[model] << 20 if stated and model else int(float(size[1]) * 1e9) if size else 0
    return Device(name.strip(), memory, number)


def this_machine(device: str) -> Device | None:
    """The device that ``Execution.device`` would use here: GPUs by nvidia-smi, otherwise the RAM.

    None if the setting names a GPU and there is none.
    """
    if device != "cpu" and (gpus := _nvidia()):
        return gpus
    if device not in ("auto", "cpu"):
        return None
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Device(f"CPU with {memory / 1e9:.0f} GB", memory, kind="cpu")


def _nvidia() -> Device | None:
    """The GPUs of this machine, each with the memory of the smallest."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    result = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    rows = [line.rpartition(",") for line in result.stdout.splitlines() if line.rpartition(",")[2].strip().isdigit()]
    if result.returncode or not rows:
        return None
    return Device(rows[0][0].strip(), min(int(row[2]) for row in rows) << 20, len(rows))
