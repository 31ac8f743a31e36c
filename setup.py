"""Package list: setup.cfg cannot combine discovery under src/ with packages that lie elsewhere."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages("src"),
        "hydra_plugins",
        "visual_transformers.conf",
        "visual_transformers.experiments",
    ]
)
