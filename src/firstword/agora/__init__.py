"""What starts an agent of Agora's engine and looks after it, by Agora's own SDK: for `firstword agent`."""
