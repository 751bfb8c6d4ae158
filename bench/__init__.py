"""The suite around the trainer: benchmarks, matrices of ablations, statistics and reports."""

import vold  # noqa: F401  before transformers: see vold.torchvision_cpu
