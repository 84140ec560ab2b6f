"""From tables to files that others read; an output appears whole or not at all."""
