"""What `make fuzz` runs: targets, and the command that gives them inputs for a while."""
