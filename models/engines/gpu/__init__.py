"""An engine that keeps photos on a graphics card and gathers their tiles there, whoever computes the network."""
