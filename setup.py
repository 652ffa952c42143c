"""The packages; everything else about them is in setup.cfg."""

from setuptools import find_packages, setup

# `upstream` is where users of s3prl look for it, and no name for a package that pip installs.
setup(
    packages=[*find_packages(include=["hear_tune*"]), "hear_tune.upstream"],
    package_dir={"hear_tune.upstream": "upstream"},
)
