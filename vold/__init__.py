"""VOLD: reasoning transfer from a text-only teacher to a vision-language student.

The package contains models, training and answers. Benchmarks, ablation matrices and reports are in :mod:`bench`.
"""

from vold import torchvision_cpu

torchvision_cpu.install()
