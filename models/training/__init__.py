"""How a network learns: pre-training, training, and what becomes of a run at its end."""
