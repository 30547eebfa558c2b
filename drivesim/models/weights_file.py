"""Weights on disk: one .safetensors file with a header that says what it is; written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


class CheckpointError(ValueError):
    """A checkpoint that cannot be used here; the message says why and what to do."""


def write_weights(path: Path, state: Mapping[str, Tensor], header: dict[str, str]) -> None:
    """Matrices go in half precision, vectors and counters as they are."""
    tensors = {
        key: (value.half() if value.is_floating_point() and value.ndim > 1 else value).contiguous()
        for key, value in state.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata=header)
    partial.replace(path)


def read_weights(path: Path, kind: str, again: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header and tensors (all float) of a file whose format is `kind`; `again` says how one comes by a new one.

    Raises:
        CheckpointError: no such file, a damaged one, or one of another format.
    """
    if not path.exists():
        raise CheckpointError(f"no checkpoint at {path}: {again}")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error}): copy it again, or {again}") from error
    if header.get("format") != kind:
        raise CheckpointError(f"{path} is not a {kind} checkpoint (format {header.get('format')!r}): {again}")
    return header, tensors
