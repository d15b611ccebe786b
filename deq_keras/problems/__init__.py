"""Problems `z = f(z)`: what is known of one, and what a solver returns."""
