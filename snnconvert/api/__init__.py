"""What `import snnconvert` offers to Python: networks that can be called, conversions, and arguments of every kind."""
