"""The report: one dict (`document`), its statistics and warnings, and its renderings."""
