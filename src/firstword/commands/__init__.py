"""The commands but `serve`, one a file: they read arguments and print; the work is done elsewhere."""
