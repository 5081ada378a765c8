"""Columns of the tables that logs become, and the names that these take."""

from __future__ import annotations

#: The columns that every export starts with; one column per parameter follows, then the rest.
COLUMNS = ("run", "machine", "benchmark", "metric", "unit", "session", "process", "sample", "value", "valid")
DETAILS = ("case", "block", "polarity", "least", "most", "machine_id", "cpus", "hop_ns", "core_width", "frequency_ghz", "reasons")

#: Reasons that make a sample doubtful and not wrong: it measured what it says, and something went on beside it. Every other one is a proof that failed.
SOFT = frozenset(("run_delay", "gaps", "frequency_changed"))

#: Names that the tables of `analysis` use themselves: no benchmark may have a parameter of such a name.
RESERVED = frozenset(
    (
        *COLUMNS,
        *DETAILS,
        "distance",
        "slow",
        "distance_new",
        "main",
        "log_value",
        "value_raw",
        "log_value_raw",
        "value_kept",
        "log_value_kept",
        "mean_kept",
        "variance_kept",
        "df_kept",
        "clock_error",
        "clock_fitted",
        "match",
        "drift",
        "samples",
        "soft",
        "hard",
        "low",
        "high",
        "half_width",
        "sessions",
        "processes",
        "disturbed",
        "scope",
        "axis",
        "control",
        "log_ratio",
        "gap",
        "log_ratio_kept",
        "gap_kept",
        "gap_raw",
        "ratio",
        "ratio_low",
        "ratio_high",
        "difference",
        "difference_low",
        "difference_high",
        "blocks",
        "machines",
        "base",
        "base_low",
        "base_high",
        "new",
        "new_low",
        "new_high",
        "p",
        "p_adjusted",
        "verdict",
        "mean",
        "variance",
        "df",
        "linear",
        "median",
        "z",
        "size_ratio",
    )
)
