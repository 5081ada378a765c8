"""Run logs as a contract: which fields a line has, which of them may be relied on, and that what changes breaks nobody's logs.

Each version of the form is frozen here, as a JSON Schema (`run-log-3.0.json`) that `registry.json` lists. `forms` makes that of this numabench and decoders of
all; `changes` says what breaks between two; `standing` says whether this numabench, or a log, is as the contract says.
"""
