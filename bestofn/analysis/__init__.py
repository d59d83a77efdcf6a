"""Tables, curves and pages from scored pools."""
