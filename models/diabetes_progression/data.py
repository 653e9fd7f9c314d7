"""Write scikit-learn's diabetes data set as a CSV file.

    python models/diabetes_progression/data.py [FOLDER]

442 patients in the units they were measured in (Efron, Hastie, Johnstone, Tibshirani 2004, "Least
angle regression").
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sklearn.datasets import load_diabetes

NAMES = {
    "age": "age", "sex": "sex", "bmi": "bmi", "bp": "blood_pressure", "s1": "cholesterol",
    "s2": "ldl", "s3": "hdl", "s4": "cholesterol_ratio", "s5": "log_triglycerides",
    "s6": "glucose", "target": "progression",
}  # fmt: skip


def write(folder: Path) -> list[Path]:
    """Write ``patients.csv``; the same bytes each time."""
    rows = load_diabetes(as_frame=True, scaled=False).frame.rename(columns=NAMES)
    rows = rows.astype({"age": int, "sex": int})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "patients.csv"
    partial = folder / f".{path.name}.{os.getpid()}"
    partial.write_text(rows.to_csv(index=False), encoding="utf-8")
    partial.replace(path)
    return [path]


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data"
    for written in write(target):
        print(written)
