"""From the files of a hospital to tables: nothing is dropped silently, bad rows go to the quarantine table."""
