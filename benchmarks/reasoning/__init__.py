"""Where an equilibrium wins: one cell as an equilibrium, and the networks that it could be instead."""
