"""Copies scenarios and suites, which live outside the package, into the wheel; all else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

DATA = ("scenarios", "eval/suites")


class BuildWithData(build_py):
    """Adds drivesim/_data/ to a wheel; a checkout reads the folders where they are."""

    def run(self) -> None:
        """Build as ever, then copy."""
        super().run()
        if self.editable_mode:
            return
        for folder in DATA:
            if Path(folder).is_dir():
                shutil.copytree(folder, Path(self.build_lib) / "drivesim" / "_data" / folder, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithData})
