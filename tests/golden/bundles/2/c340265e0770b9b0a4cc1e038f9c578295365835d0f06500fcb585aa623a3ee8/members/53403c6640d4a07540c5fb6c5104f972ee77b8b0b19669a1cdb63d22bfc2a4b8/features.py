
import pandas as pd

from perennial.data.features import fitted


def weight_per_item(weight_kg: pd.Series, items: pd.Series) -> pd.Series:
    """Kilograms."""
    return weight_kg / (items + 1)


def hour(sent: pd.Series) -> pd.Series:
    return sent.dt.hour


@fitted
def depot_share(depot: pd.Series) -> dict[str, float]:
    return depot.value_counts(normalize=True).to_dict()


def depot_size(depot: pd.Series, depot_share: dict[str, float]) -> pd.Series:
    return depot.map(depot_share)
