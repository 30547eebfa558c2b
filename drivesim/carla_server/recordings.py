"""Where a server keeps its recordings, and which names clients may give."""

from __future__ import annotations

import shutil
from pathlib import Path

from drivesim.carla_server.rpc import Refusal
from drivesim.carla_server.structs import text
from drivesim.town.towns import cache_folder

NAME_LIMIT = 4096
LEAST_FREE = 1 << 30  # bytes that a disk must have for a recording to begin


def default_folder() -> Path:
    """`recordings` in the user's cache."""
    return cache_folder() / "recordings"


class Recordings:
    """A folder, and whether clients may leave it."""

    def __init__(self, folder: Path | None = None, *, anywhere: bool = False) -> None:
        """Say where recordings go.

        Args:
            folder: made with the first recording; `default_folder` when None.
            anywhere: let clients name any path of this machine, as CARLA does.
        """
        self.folder = (folder or default_folder()).expanduser().resolve()
        self.anywhere = anywhere

    def path(self, name: object, method: str) -> Path:
        """The file that a client's name means; relative names lie in the folder.

        Raises:
            Refusal: the name is empty, or climbs out of the folder without permission.
        """
        given = text(name, NAME_LIMIT)
        try:
            path = (self.folder / given).resolve()
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a zero byte
            raise Refusal(f"{method}: {given!r} is no file name ({error})") from None
        if path == self.folder or not given.strip():
            raise Refusal(f"{method}: {given!r} names no file")
        if not self.anywhere and not path.is_relative_to(self.folder):
            raise Refusal(
                f"{method}: {given!r} lies outside of this server's folder for recordings, {self.folder}; "
                "`drivesim serve --recordings DIR` sets another folder, --any-recording-path allows any path"
            )
        return path

    def path_to_write(self, name: object, method: str) -> Path:
        """As `path`; its folder exists afterwards.

        Raises:
            Refusal: as `path`, or the folder cannot be made, or the disk is nearly full.
        """
        path = self.path(name, method)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refusal(f"{method}: cannot make {path.parent} ({error.strerror or error})") from None
        if shutil.disk_usage(path.parent).free < LEAST_FREE:
            raise Refusal(f"{method}: less than {LEAST_FREE >> 30} GB is free in {path.parent}")
        return path
