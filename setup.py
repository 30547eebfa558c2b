"""Copies the data that lives outside the package (scenarios, suites) into the wheel; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

DATA = {"scenarios": "scenarios", "eval/suites": "suites"}


class BuildWithData(build_py):
    """Adds drivesim/data/ to a wheel; a checkout reads the folders where they are."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for source, name in DATA.items():
            if Path(source).is_dir():
                shutil.copytree(source, Path(self.build_lib) / "drivesim" / "data" / name, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithData})
