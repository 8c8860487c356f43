"""What a run writes into its folder and what it is called there: scores, CSV files, provenance, the end of a run.

Knows files and numbers only: no configuration, no networks. Reports are made from records in `src/reporting`.
"""
