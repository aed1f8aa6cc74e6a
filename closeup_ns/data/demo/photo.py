"""How the demo's camera turns light into a photograph: lens, sensor, tone curve, resize, JPEG.

The scene is imaged on a sensor with ``reduction`` times the pixels of the photograph per axis (1 for originals). Its
pixels average their area; before them the lens blurs, after them come shot and read noise, the sRGB curve, and the
resize that photo tools do (Lanczos, on the encoded 8-bit values). Exact box averages of the final pixel, as most
synthetic sets have them, would flatter a renderer that models a pixel as a small box (research/quality.md, "the
pixel's own footprint").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from closeup_ns.data.demo.render import FloatImage, linear_to_srgb


@dataclass(frozen=True)
class PhotoModel:
    """A consumer camera in good light. The defaults describe a sharp lens and the noise of ISO 400 or so."""

    reduction: int = 2
    """Sensor pixels per pixel of the photograph, along each axis."""
    lens_sigma: float = 0.8
    """Standard deviation of the blur of lens, anti-alias filter and demosaicing, in sensor pixels (FWHM 1.9 pixels).
    With the sensor pixel's own area this is 0.43 pixels of the final photograph."""
    exposure: float = 2.5
    """Gain from scene radiance to the sensor's full scale: white paper comes to 0.8."""
    full_well: float = 8000.0
    """Electrons at full scale: shot noise has the variance of the number of electrons."""
    read_noise: float = 6.0
    """Standard deviation of the read noise, in electrons."""
    jpeg_quality: int = 92
    """Quality at which the far photographs are saved (4:2:0 chroma, as cameras do)."""

    def lens(self, radiance: FloatImage) -> FloatImage:
        """Blur linear light [H, W, 3] by the lens. The mean is kept: the borders reflect."""
        blurred = gaussian_filter(radiance, (self.lens_sigma, self.lens_sigma, 0), mode="reflect", truncate=5.0)
        return blurred.astype(np.float32)

    def noise(self, exposed: FloatImage, rng: np.random.Generator) -> FloatImage:
        """Linear sensor values, full scale 1, with shot noise (variance value / full_well) and read noise."""
        variance = np.clip(exposed, 0, None) / self.full_well + (self.read_noise / self.full_well) ** 2
        return (exposed + np.sqrt(variance) * rng.standard_normal(exposed.shape, np.float32)).astype(np.float32)

    def develop(self, radiance: FloatImage, rng: np.random.Generator | None = None) -> NDArray[np.uint8]:
        """The photograph, uint8 sRGB [H / reduction, W / reduction, 3], of linear radiance on the sensor [H, W, 3].

        Without ``rng`` the sensor is noiseless: the true close-ups are made so, because PSNR against them shall judge
        the renderer and not the grain.
        """
        exposed = self.lens(radiance) * np.float32(self.exposure)
        if rng is not None:
            exposed = self.noise(exposed, rng)
        encoded = (linear_to_srgb(exposed) * 255 + 0.5).astype(np.uint8)
        return reduced(encoded, self.reduction)


def reduced(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """``image`` [H, W, 3] with ``factor`` times fewer pixels along each axis, as photo tools make it (Lanczos)."""
    size = (image.shape[1] // factor, image.shape[0] // factor)
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)) if factor > 1 else image
