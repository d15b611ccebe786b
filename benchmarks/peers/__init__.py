"""Contestants, a module each: `FAMILIES` of settings, and `build(problem, options)`."""
