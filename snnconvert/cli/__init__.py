"""The command line: parsing, and what commands do."""
