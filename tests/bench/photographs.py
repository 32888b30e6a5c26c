"""Made-up photographs for benchmarks: as hard to decode as real ones, on any machine, without a download."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image


def photograph(height: int, width: int, seed: int) -> npt.NDArray[np.uint8]:
    """(height, width, 3): amplitudes fall with frequency as in nature; weak colours, edges, a sensor's noise."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = np.inf

    def cloud(fall: float) -> npt.NDArray[np.float64]:
        spectrum = np.exp(2j * np.pi * random.random(frequency.shape)) / frequency**fall
        values = np.fft.irfft2(spectrum, (height, width))
        return (values - values.mean()) / values.std()

    grey, warm, green = cloud(1.6), cloud(2.0), cloud(2.0)
    image = np.stack([grey + 0.4 * warm, grey + 0.3 * green, grey - 0.4 * warm], axis=2)
    for _ in range(6):
        top, left = random.integers(0, height), random.integers(0, width)
        image[top : top + height // 4, left : left + width // 4] += random.normal(0, 0.8, 3)
    level = 120 + 48 * image + random.normal(0, 1.5, (height, width, 1))
    return np.clip(level, 0, 255).astype(np.uint8)


def jpeg(pixels: npt.NDArray[np.uint8], quality: int = 90) -> bytes:
    """The image as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
