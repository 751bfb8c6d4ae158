"""VOLD: reasoning transfer from a text-only teacher to a vision-language student.

The package knows models, text and losses; benchmarks, matrices and pages live in :mod:`bench`.
"""

from vold import torchvision_cpu

torchvision_cpu.install()
