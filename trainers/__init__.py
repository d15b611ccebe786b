"""Training of equilibrium and bilevel models on one or many devices and machines."""
