"""From a calibrated network and a schedule to a spiking network whose sums are exact."""
