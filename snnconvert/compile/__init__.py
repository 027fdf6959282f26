"""From a calibrated network and a schedule to a spiking network whose sums are exact."""

# the values of --precision
PRECISIONS = ("float32", "bfloat16", "int8")
