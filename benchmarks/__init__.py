"""Speed, printed as ratios from one run: `make bench`. Never run as tests."""
