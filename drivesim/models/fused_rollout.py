"""The predictor's rollout in one pass over each future: what a planner on a processor waits for most.

As tensor operations, a rollout of six steps is a thousand small ones, and on two cores the threads meet after each.
Here every future is followed from its first step to its last in one loop, and the futures are shared among the threads,
which meet once. The arithmetic is the predictor's; answers differ by rounding (`tests/laws/test_fused_laws.py`).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from drivesim.models.predictor import LatentPredictor, action_features, speeds_along

Floats = NDArray[np.float32]
AT_ONCE = 4  # rows and columns of a product's left side that are kept in registers


@njit(cache=True, nogil=True, fastmath=True)
def _affine(x, rows, weight, bias, out):  # type: ignore[no-untyped-def]
    """out[:rows] = x[:rows] @ weight + bias; rows and the inner size are multiples of four."""
    inner, width = weight.shape
    for i in range(0, rows, 4):
        for r in range(4):
            out[i + r] = bias
        for k in range(0, inner, 4):
            a0, a1, a2, a3 = x[i, k], x[i, k + 1], x[i, k + 2], x[i, k + 3]
            b0, b1, b2, b3 = x[i + 1, k], x[i + 1, k + 1], x[i + 1, k + 2], x[i + 1, k + 3]
            c0, c1, c2, c3 = x[i + 2, k], x[i + 2, k + 1], x[i + 2, k + 2], x[i + 2, k + 3]
            d0, d1, d2, d3 = x[i + 3, k], x[i + 3, k + 1], x[i + 3, k + 2], x[i + 3, k + 3]
            for j in range(width):
                w0, w1, w2, w3 = weight[k, j], weight[k + 1, j], weight[k + 2, j], weight[k + 3, j]
                out[i, j] += a0 * w0 + a1 * w1 + a2 * w2 + a3 * w3
                out[i + 1, j] += b0 * w0 + b1 * w1 + b2 * w2 + b3 * w3
                out[i + 2, j] += c0 * w0 + c1 * w1 + c2 * w2 + c3 * w3
                out[i + 3, j] += d0 * w0 + d1 * w1 + d2 * w2 + d3 * w3


@njit(cache=True, nogil=True, fastmath=True)
def _normed(x, rows, scale, shift, out):  # type: ignore[no-untyped-def]
    """Layer norm of rows of x, times `scale` plus `shift` (width,)."""
    width = x.shape[1]
    for i in range(rows):
        total = np.float32(0.0)
        for j in range(width):
            total += x[i, j]
        mean = total / np.float32(width)
        square = np.float32(0.0)
        for j in range(width):
            square += (x[i, j] - mean) * (x[i, j] - mean)
        factor = np.float32(1.0) / np.sqrt(square / np.float32(width) + np.float32(1e-5))
        for j in range(width):
            out[i, j] = (x[i, j] - mean) * factor * scale[j] + shift[j]


@njit(cache=True, nogil=True, fastmath=True)
def _gelu(x, rows):  # type: ignore[no-untyped-def]
    """x * Phi(x) in place. Phi is a fraction of polynomials, fitted to 2e-6: unlike erf, a loop of it is vectorised."""
    one = np.float32(1.0)
    for i in range(rows):
        for j in range(x.shape[1]):
            z = min(max(x[i, j], np.float32(-5.0)), np.float32(5.0))
            t = z * z
            p = np.float32(5.08884938e-06)
            p = p * t + np.float32(0.000264561428)
            p = p * t + np.float32(0.00518954769)
            p = p * t + np.float32(0.0450542014)
            p = p * t + np.float32(0.398942083)
            q = np.float32(4.54039356e-07)
            q = q * t + np.float32(9.50934227e-05)
            q = q * t + np.float32(0.0024128019)
            q = q * t + np.float32(0.0346143095)
            q = q * t + np.float32(0.279597446)
            q = q * t + one
            x[i, j] *= np.float32(0.5) + z * p / q


@njit(cache=True, nogil=True, fastmath=True)
def _softmax(scores):  # type: ignore[no-untyped-def]
    """Softmax of a row in place.

    exp is a polynomial of x / 32, squared five times: unlike exp, a loop of it is vectorised.
    """
    most = scores[0]
    for score in scores:
        most = max(most, score)
    total = np.float32(0.0)
    for j in range(len(scores)):
        t = max((scores[j] - most) * np.float32(1.0 / 32.0), np.float32(-1.0))  # below e^-32 nothing counts
        power = np.float32(1.0 / 5040.0)
        power = power * t + np.float32(1.0 / 720.0)
        power = power * t + np.float32(1.0 / 120.0)
        power = power * t + np.float32(1.0 / 24.0)
        power = power * t + np.float32(1.0 / 6.0)
        power = power * t + np.float32(0.5)
        power = power * t + np.float32(1.0)
        power = power * t + np.float32(1.0)
        power *= power
        power *= power
        power *= power
        power *= power
        power *= power
        scores[j] = power
        total += power
    factor = np.float32(1.0) / total
    for j in range(len(scores)):
        scores[j] *= factor


@njit(cache=True, nogil=True, fastmath=True)
def _attended(qkv, n, heads, keys, scores, out):  # type: ignore[no-untyped-def]
    """What each of n slots reads from all: qkv (n, 3 w), queries already scaled; out (n, w).

    Args:
        keys: (w / heads, n) and scores (n,) to work with.
    """
    width = out.shape[1]
    size = width // heads
    for h in range(heads):
        first = h * size
        for j in range(n):
            for c in range(size):
                keys[c, j] = qkv[j, width + first + c]
        for i in range(n):
            scores[:] = np.float32(0.0)
            for c in range(0, size, 4):
                q0, q1, q2, q3 = qkv[i, first + c], qkv[i, first + c + 1], qkv[i, first + c + 2], qkv[i, first + c + 3]
                for j in range(n):
                    scores[j] += q0 * keys[c, j] + q1 * keys[c + 1, j] + q2 * keys[c + 2, j] + q3 * keys[c + 3, j]
            _softmax(scores)
            row = out[i, first : first + size]
            row[:] = np.float32(0.0)
            for j in range(n):
                share, value = scores[j], qkv[j, 2 * width + first : 2 * width + first + size]
                for c in range(size):
                    row[c] += share * value[c]


@njit(cache=True, nogil=True, fastmath=True)
def _follow(  # type: ignore[no-untyped-def]
    previous, current, told, embed, place, qkv, qkv_bias, mixed, mixed_bias, up, up_bias, down, down_bias,
    norm, norm_bias, member, member_bias, heads, latents, square, pooled,
):  # fmt: skip
    """Follow futures from their first step to their last.

    Args:
        previous, current: (b, n, d); told (b, p, blocks, 6, w) what every block is told at every step: shift, scale
            (one added), gate for its attention and for its perceptron.
        embed: (2 d, w), place (rows, w) what is added to it; the other weights (blocks, in, out), biases (blocks, out).
        norm, norm_bias: (w,); member (w, members d), member_bias (members d,).
        latents: (b, p, n, d) to be filled, the members' mean; square (b, p), their mean squared difference from it;
            pooled (b, p, w), the last block's mean slot.
    """
    b, n, d = current.shape
    rows, width = place.shape  # rows: n, made a multiple of four
    blocks, members = qkv.shape[0], member.shape[1] // d
    pair, x, y = (
        np.zeros((rows, 2 * d), np.float32),
        np.zeros((rows, width), np.float32),
        np.zeros((rows, width), np.float32),
    )
    wide, mid = np.zeros((rows, 3 * width), np.float32), np.zeros((rows, up.shape[2]), np.float32)
    read, added = np.zeros((rows, width), np.float32), np.zeros((rows, member.shape[1]), np.float32)
    none, scores, keys = np.zeros(width, np.float32), np.zeros(n, np.float32), np.zeros((width // heads, n), np.float32)
    for future in range(b):
        for i in range(n):
            pair[i, :d] = previous[future, i]
            pair[i, d:] = current[future, i]
        for step in range(told.shape[1]):
            _affine(pair, rows, embed, none, x)
            for i in range(n):
                for j in range(width):
                    x[i, j] += place[i, j]
            for block in range(blocks):
                asked = told[future, step, block]
                _normed(x, n, asked[1], asked[0], y)
                _affine(y, rows, qkv[block], qkv_bias[block], wide)
                _attended(wide, n, heads, keys, scores, read)
                _affine(read, rows, mixed[block], mixed_bias[block], y)
                for i in range(n):
                    for j in range(width):
                        x[i, j] += asked[2, j] * y[i, j]
                _normed(x, n, asked[4], asked[3], y)
                _affine(y, rows, up[block], up_bias[block], mid)
                _gelu(mid, n)
                _affine(mid, rows, down[block], down_bias[block], y)
                for i in range(n):
                    for j in range(width):
                        x[i, j] += asked[5, j] * y[i, j]
            _normed(x, n, norm, norm_bias, y)
            for j in range(width):
                total = np.float32(0.0)
                for i in range(n):
                    total += y[i, j]
                pooled[future, step, j] = total / np.float32(n)
            _affine(y, rows, member, member_bias, added)
            apart = np.float32(0.0)
            for i in range(n):
                for j in range(d):
                    mean = np.float32(0.0)
                    for m in range(members):
                        mean += added[i, m * d + j]
                    mean /= np.float32(members)
                    for m in range(members):
                        apart += (added[i, m * d + j] - mean) * (added[i, m * d + j] - mean)
                    ahead = pair[i, d + j] + mean
                    pair[i, j] = pair[i, d + j]
                    pair[i, d + j] = ahead
                    latents[future, step, i, j] = ahead
            square[future, step] = apart / np.float32(members * n * d)


def _array(tensor: Tensor) -> Floats:
    return np.ascontiguousarray(tensor.detach().float().numpy())


def _version(predictor: LatentPredictor) -> tuple[tuple[int, int], ...]:
    return tuple((weight.data_ptr(), weight._version) for weight in predictor.parameters())


@dataclass(frozen=True)
class FusedRollout:
    """A predictor's weights as arrays, laid out for `rollout`.

    Attributes:
        modulation: weight and bias of all blocks' modulations, one under the other.
        weights: `_follow`'s arguments from `embed` to `member_bias`.
        version: which weights they were copied from.
    """

    predictor: LatentPredictor
    modulation: tuple[Tensor, Tensor]
    weights: tuple[Floats, ...]
    version: tuple[tuple[int, int], ...]

    @property
    def current(self) -> bool:
        """Whether the predictor still has the weights that were copied."""
        return self.version == _version(self.predictor)

    @staticmethod
    def fits(predictor: LatentPredictor) -> bool:
        """Whether a predictor can be followed so: step by step, on a processor, its members apart only at the end."""
        if type(predictor) is not LatentPredictor:
            return False
        c = predictor.config
        plain = c.mode == "autoregressive" and not c.own_blocks and not c.slot_modulation
        even = not any(size % AT_ONCE for size in (c.width, c.latent_dim, c.width // c.heads))
        return plain and even and next(predictor.parameters()).device.type == "cpu"

    @classmethod
    @torch.no_grad()
    def of(cls, predictor: LatentPredictor) -> FusedRollout:
        """Copy a predictor's weights.

        Raises:
            ValueError: `fits` says no to it.
        """
        if not cls.fits(predictor):
            raise ValueError(f"this predictor is not one to be fused: {predictor.config}")
        c, found = predictor.config, predictor.state_dict()

        def of_blocks(name: str) -> Tensor:
            return torch.stack([found[f"blocks.{block}.{name}"] for block in range(c.layers)])

        def of_members(name: str) -> Tensor:
            return torch.cat([found[f"members.{member}.{name}"] for member in range(c.members)])

        scale = (c.width // c.heads) ** -0.5
        place = torch.zeros(-(-c.slots // AT_ONCE) * AT_ONCE, c.width)
        place[: c.slots] = found["position"] + found["embed.bias"]
        query = [of_blocks(f"attention.query.{name}") * scale for name in ("weight", "bias")]
        read = [of_blocks(f"attention.key_value.{name}") for name in ("weight", "bias")]
        parts = [
            found["embed.weight"].T,
            place,
            torch.cat([query[0], read[0]], 1).mT,
            torch.cat([query[1], read[1]], 1),
        ]
        for name in ("attention.out", "mlp.0", "mlp.2"):
            parts += [of_blocks(f"{name}.weight").mT, of_blocks(f"{name}.bias")]
        parts += [found["norm.weight"], found["norm.bias"], of_members("weight").T, of_members("bias")]
        told = of_blocks("modulation.bias").view(c.layers, 6, c.width).clone()
        told[:, [1, 4]] += 1.0  # a scale is told as what it adds to one
        modulation = of_blocks("modulation.weight").flatten(0, 1), told.flatten()
        return cls(predictor, modulation, tuple(_array(part) for part in parts), _version(predictor))

    def rollout(self, previous: Tensor, current: Tensor, actions: Tensor, speed_mps: Tensor) -> tuple[Tensor, Tensor]:
        """As `LatentPredictor.rollout`: latents (b, p, n, d) and the doubt (b, p) about them. No gradients."""
        c, (b, p) = self.predictor.config, actions.shape[:2]
        with torch.no_grad():
            condition = self.predictor.condition(action_features(actions, speeds_along(actions, speed_mps)[:, :-1]))
            told = torch.nn.functional.linear(condition, *self.modulation).view(b, p, c.layers, 6, c.width)
            latents = np.empty((b, p, c.slots, c.latent_dim), np.float32)
            square, pooled = np.empty((b, p), np.float32), np.empty((b, p, c.width), np.float32)
            starts = (np.ascontiguousarray(x.numpy()) for x in (previous, current))
            filled = (*starts, told.numpy()), (latents, square, pooled)
            threads = min(torch.get_num_threads(), b)
            shares = [slice(b * k // threads, b * (k + 1) // threads) for k in range(threads)]

            def follow(rows: slice) -> None:
                given, out = ([array[rows] for array in arrays] for arrays in filled)
                _follow(*given, *self.weights, c.heads, *out)

            if threads > 1:
                list(_pool(threads).map(follow, shares))
            else:
                follow(slice(0, b))
            doubt = torch.from_numpy(square)
            if self.predictor.expected is not None:
                told_apart = torch.cat([torch.from_numpy(pooled), condition], dim=-1)
                doubt = doubt + self.predictor.expected(told_apart)[..., 0].exp()
            return torch.from_numpy(latents), doubt.sqrt()


_pools: dict[int, ThreadPoolExecutor] = {}


def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that are kept: starting them anew would cost as much as they save."""
    if threads not in _pools:
        _pools[threads] = ThreadPoolExecutor(threads, thread_name_prefix="rollout")
    return _pools[threads]
