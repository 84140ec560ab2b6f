"""Who takes part: refusals, the cohort, and the count of who was left out and why."""
