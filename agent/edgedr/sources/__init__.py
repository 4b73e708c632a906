"""The parts of a node that can be captured, put back and proven: one module each, which do not know each other."""
