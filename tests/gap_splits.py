"""The gap splits of the UCI tables, without those whose gap is a single value."""

GAP_SPLITS = {
    "boston_gap": 11,
    "concrete_gap": 7,
    "energy_gap": 8,
    "kin8nm_gap": 8,
    "naval_gap": 14,
    "power_gap": 4,
    "wine_gap": 11,
    "yacht_gap": 4,
}
