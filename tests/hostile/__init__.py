"""What arrives as bytes on our listening socket, from people who mean no good; each attempt says what came of it."""
