"""What is asked of a spiking network beside its accuracy: each study is a file, run when it is asked for."""
