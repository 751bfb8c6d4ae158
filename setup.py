"""The packages and data files of a wheel; all other settings are in pyproject.toml.

A wheel carries the folders of ``BUNDLED`` inside the package ``bench``, where ``bench/bundled.py`` looks for them. This
is not possible in pyproject.toml, which can search for packages or list all of them, but not both.
"""

from setuptools import find_packages, setup

BUNDLED = {
    "bench._bundled.ablations": "ablations",
    "bench._bundled.ablations.profiles": "ablations/profiles",
    "bench._bundled.results.baselines": "results/baselines",
}

setup(
    packages=[*find_packages(include=["vold", "vold.*", "bench", "bench.*", "vold_bench"]), *BUNDLED],
    package_dir=BUNDLED,
    package_data={
        "vold": ["py.typed"],
        "vold_bench": ["py.typed"],
        "bench": ["py.typed", "smallworld/checkpoints/**/*", "report/templates/*", "report/paper.json"],
        **{package: ["*.yaml", "*.json"] for package in BUNDLED},
    },
)
