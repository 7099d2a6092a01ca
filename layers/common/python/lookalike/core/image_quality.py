"""What can be told of a photo from its thumbnail: brightness, contrast, blur, hash, a tiny picture.

Pure arithmetic on a picture that is decoded already; what follows for a merchant, the rules of
`lookalike.core.health` say.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from lookalike.core.perceptual_hash import HASH_SIDE, perceptual_hashes

SIGNATURE_SIDE = 16
FACTS = np.dtype(
    [
        ("photo", "<u8"),  # names the thumbnail that the facts are of
        ("hash", "<u8"),
        ("mirrored", "<u8"),
        ("brightness", "<f4"),  # 0–255, of the brighter half: a dark background is none of it
        ("contrast", "<f4"),  # standard deviation of grey levels
        ("blur", "<f4"),  # 0 (sharp) to 1
        ("aspect", "<f4"),  # width / height
        ("signature", "u1", (SIGNATURE_SIDE, SIGNATURE_SIDE)),
    ]
)
"""One photo's facts. ``blur`` is that of Crete et al., "The blur effect" (SPIE 2007)."""

_LONGEST = 128
_BLUR_TAPS = 9

Facts = npt.NDArray[np.void]
Float32 = npt.NDArray[np.float32]


def photo_facts(image: Image.Image, photo: int) -> Facts:
    """The facts of one photo, () of `FACTS`.

    Parameters
    ----------
    image
        Its thumbnail, RGB or grey.
    photo
        Number that names it.
    """
    grey = image.convert("L")
    facts = np.zeros((), FACTS)
    facts["photo"] = photo
    facts["aspect"] = grey.width / grey.height
    hashed = grey.resize((HASH_SIDE, HASH_SIDE), Image.Resampling.BILINEAR)
    hashes, mirrored = perceptual_hashes(np.asarray(hashed, np.float32)[None])
    facts["hash"], facts["mirrored"] = hashes[0], mirrored[0]
    side = (SIGNATURE_SIDE, SIGNATURE_SIDE)
    facts["signature"] = np.asarray(grey.resize(side, Image.Resampling.BOX))
    pixels = np.asarray(_reduced(grey), np.float32)
    brighter = np.partition(pixels.ravel(), pixels.size // 2)[pixels.size // 2 :]
    facts["brightness"] = brighter.mean()
    facts["contrast"] = pixels.std()
    facts["blur"] = blur(pixels)
    return facts


def blur(pixels: Float32) -> float:
    """How little blurring a grey picture (h, w) changes it: 0 for a sharp one, 1 for a flat one.

    The larger of both directions' shares of the variation between neighbouring pixels that stays
    when the picture is averaged over nine pixels (Crete et al., 2007).
    """
    return max(_blur_along(pixels), _blur_along(pixels.T))


def _blur_along(pixels: Float32) -> float:
    if pixels.shape[1] <= _BLUR_TAPS + 1:
        return 0.0
    sums = np.cumsum(np.pad(pixels, ((0, 0), (1, 0))), axis=1, dtype=np.float64)
    blurred = (sums[:, _BLUR_TAPS:] - sums[:, :-_BLUR_TAPS]) / _BLUR_TAPS
    margin = _BLUR_TAPS // 2
    before = np.abs(np.diff(pixels[:, margin:-margin], axis=1))
    after = np.abs(np.diff(blurred, axis=1))
    total = float(before.sum())
    lost = float(np.maximum(before - after, 0).sum())
    return 1.0 - lost / total if total > 0 else 1.0


def _reduced(grey: Image.Image) -> Image.Image:
    scale = _LONGEST / max(grey.size)
    if scale >= 1:
        return grey
    size = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
    return grey.resize(size, Image.Resampling.BOX)
