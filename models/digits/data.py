"""Write scikit-learn's handwritten digits as a CSV file.

    python models/digits/data.py [FOLDER]

1,797 digits as 8 × 8 pixels of ink 0 to 16: ``p00`` is the first row's first pixel, ``p07`` its
last (Alpaydin and Kaynak 1998, "Optical recognition of handwritten digits").
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sklearn.datasets import load_digits


def write(folder: Path) -> list[Path]:
    """Write ``digits.csv``; the same bytes each time."""
    loaded = load_digits(as_frame=True)
    pixels = [f"p{row}{column}" for row in range(8) for column in range(8)]
    rows = loaded.data.set_axis(pixels, axis="columns").astype(int)
    rows["digit"] = loaded.target
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "digits.csv"
    partial = folder / f".{path.name}.{os.getpid()}"
    partial.write_text(rows.to_csv(index=False), encoding="utf-8")
    partial.replace(path)
    return [path]


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data"
    for written in write(target):
        print(written)
