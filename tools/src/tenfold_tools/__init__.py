"""What the maintainers of Tenfold run; see `uv run tools --help`."""
