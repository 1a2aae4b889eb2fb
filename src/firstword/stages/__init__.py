"""The stages of a turn, one verb a file: what stands around the model. `building.py` has their order."""
