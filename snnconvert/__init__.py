"""Convert trained neural networks into spiking neural networks."""
