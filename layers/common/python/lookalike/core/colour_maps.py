"""Colours for strengths: uniform to the eye, and told apart with any kind of colour vision.

`SEQUENTIAL` is viridis by S. van der Walt, N. Smith and E. Firing, from matplotlib (CC0): uniform,
its lightness rises all the way. Over photos it reads better than cividis, whose greys vanish on
grey cloth and whose yellow, to people with tritanopia, is white on white.
`DIVERGING` is made here: two straight lines in CIELAB from grey to blue (below 0) and to orange
(above), at equal distances, equally light at equal strength.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Float64 = npt.NDArray[np.float64]

_VIRIDIS = (
    "44015444025544035745055845065a45085b46095c460b5e460c5f460e61470f62471163471265471466471567"
    "47166947186a48196b481a6c481c6e481d6f481e70482071482172482273482374472575472676472777472878"
    "472a79472b7a472c7b462d7c462f7c46307d46317e45327f45347f453580453681443781443982433a83433b83"
    "433c84423d84423e854240854141864142864043874044873f45873f47883e48883e49893d4a893d4b893d4c89"
    "3c4d8a3c4e8a3b508a3b518a3a528b3a538b39548b39558b38568b38578c37588c37598c365a8c365b8c355c8c"
    "355d8c345e8d345f8d33608d33618d32628d32638d31648d31658d31668d30678d30688d2f698d2f6a8d2e6b8e"
    "2e6c8e2e6d8e2d6e8e2d6f8e2c708e2c718e2c728e2b738e2b748e2a758e2a768e2a778e29788e29798e287a8e"
    "287a8e287b8e277c8e277d8e277e8e267f8e26808e26818e25828e25838d24848d24858d24868d23878d23888d"
    "23898d22898d228a8d228b8d218c8d218d8c218e8c208f8c20908c20918c1f928c1f938b1f948b1f958b1f968b"
    "1e978a1e988a1e998a1e998a1e9a891e9b891e9c891e9d881e9e881e9f881ea0871fa1871fa2861fa38620a485"
    "20a58521a68521a78422a78423a88323a98224aa8225ab8126ac8127ad8028ae7f29af7f2ab07e2bb17d2cb17d"
    "2eb27c2fb37b30b47a32b57a33b67935b77836b87738b97639b9763bba753dbb743ebc7340bd7242be7144be70"
    "45bf6f47c06e49c16d4bc26c4dc26b4fc36951c46853c56755c66657c66559c7645bc8625ec96160c96062ca5f"
    "64cb5d67cc5c69cc5b6bcd596dce5870ce5672cf5574d05477d05279d1517cd24f7ed24e81d34c83d34b86d449"
    "88d5478bd5468dd64490d64392d74195d73f97d83e9ad83c9dd93a9fd938a2da37a5da35a7db33aadb32addc30"
    "afdc2eb2dd2cb5dd2bb7dd29bade27bdde26bfdf24c2df22c5df21c7e01fcae01ecde01dcfe11cd2e11bd4e11a"
    "d7e219dae218dce218dfe318e1e318e4e318e7e419e9e419ece41aeee51bf1e51cf3e51ef6e61ff8e621fae622"
    "fde724"
)

_WEAK_LIGHTNESS, _STRONG_LIGHTNESS, _CHROMA = 80.0, 60.0, 62.0
_BLUE, _ORANGE = np.deg2rad(279.0), np.deg2rad(62.0)

# CIE 15 and IEC 61966-2-1: CIELAB with the white of D65, and linear sRGB from XYZ.
_WHITE = np.array([0.95047, 1.0, 1.08883])
_LINEAR_FROM_XYZ = np.array(
    [
        [3.2404542, -1.5371385, -0.4985314],
        [-0.9692660, 1.8760108, 0.0415560],
        [0.0556434, -0.2040259, 1.0572252],
    ]
)


def _diverging() -> Bytes:
    """Entry 128 is 0; 1 and 255 are the strongest."""
    strengths = np.clip((np.arange(256) - 128) / 127, -1.0, 1.0)
    distances = np.abs(strengths)
    lightness = _WEAK_LIGHTNESS + (_STRONG_LIGHTNESS - _WEAK_LIGHTNESS) * distances
    hue = np.where(strengths < 0, _BLUE, _ORANGE)
    a, b = (_CHROMA * distances * turn(hue) for turn in (np.cos, np.sin))
    return _srgb(np.stack([lightness, a, b], axis=1))


def _srgb(lab: Float64) -> Bytes:
    """(n, 3) CIELAB colours inside the gamut as (n, 3) sRGB bytes."""
    y = (lab[:, 0] + 16) / 116
    roots = np.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], axis=1)
    xyz = np.where(roots > 6 / 29, roots**3, (roots - 4 / 29) * 3 * (6 / 29) ** 2) * _WHITE
    linear = np.clip(xyz @ _LINEAR_FROM_XYZ.T, 0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    colours: Bytes = np.rint(encoded * 255).astype(np.uint8)
    return colours


SEQUENTIAL: Bytes = np.frombuffer(bytes.fromhex("".join(_VIRIDIS)), dtype=np.uint8).reshape(256, 3)
"""(256, 3) sRGB, from 0 to the strongest."""
DIVERGING: Bytes = _diverging()
"""(256, 3) sRGB: 128 is 0, 1 and 255 are the strongest below and above."""
