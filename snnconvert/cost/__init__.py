"""What a network costs on hardware: energy, and the limits of chips."""
