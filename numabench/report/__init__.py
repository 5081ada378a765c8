"""Figures, tables and pages, made of what the analysis found."""

import logging

# Of an account without a home, or with one that cannot be written to, matplotlib says at length what is no fault and concerns nobody who reads a log.
logging.getLogger("matplotlib").addFilter(lambda record: record.funcName != "_get_config_or_cache_dir")
