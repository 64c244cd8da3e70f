"""How an equilibrium is differentiated: ways of meeting the adjoint equation, and what they share."""
