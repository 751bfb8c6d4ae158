"""Benchmarks, ablation matrices, statistics and reports around the trainer."""

import vold  # noqa: F401  before transformers: see vold.torchvision_cpu
