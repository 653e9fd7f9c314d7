"""What sets a patient apart from the others of the same sex."""

from __future__ import annotations

import pandas as pd

from perennial.data.features import fitted


@fitted
def usual_bmi(bmi: pd.Series, sex: pd.Series) -> dict[str, float]:
    """Mean body mass index of each sex."""
    return bmi.groupby(sex).mean().dropna().to_dict()


def bmi_above_usual(bmi: pd.Series, sex: pd.Series, usual_bmi: dict[str, float]) -> pd.Series:
    """Body mass index above the mean of the sex."""
    return bmi - sex.map(usual_bmi)


def ldl_share(ldl: pd.Series, cholesterol: pd.Series) -> pd.Series:
    """Share of low-density lipoproteins in all cholesterol."""
    return ldl / cholesterol
