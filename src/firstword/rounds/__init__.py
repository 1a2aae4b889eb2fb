"""The rounds of one turn: the model answers, its tools run, it answers again. `call_tools` is the stage."""
