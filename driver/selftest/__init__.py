"""Does this device work, and if not, what is broken? ``python -m driver selftest --device NAME``; docs/selftest.md."""
