"""Small pictures of each kind that bve-run takes, for fuzz_picture.cc to begin with:

python -m tests.runtime.draw_seeds FOLDER
"""

import sys
from pathlib import Path

from PIL import Image

KINDS = {"jpg": ("RGB", "L", "CMYK"), "png": ("RGB", "RGBA", "P"), "ppm": ("RGB", "L")}

if __name__ == "__main__":
    (folder := Path(sys.argv[1])).mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    for ending, modes in KINDS.items():
        for mode in modes:
            Image.effect_noise((9, 7), 90).convert(mode).save(folder / f"{mode}.{ending}", exif=exif)
